# A DNS server that knows a few records by heart: python3 dns.py ADDRESS PORT "NAME TYPE DATA"…
# TYPE is A, AAAA, CNAME, MX, PTR or TXT; instead of a type and its data there may be SERVFAIL.
# A name that was not given does not exist (NXDOMAIN). Each question is printed.
import socket, struct, sys

TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}

def name(text):
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"

def data(kind, text):
    if kind in ("A", "AAAA"):
        return socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, text)
    if kind == "TXT":  # strings of at most 255 octets
        strings = [text[at : at + 255].encode() for at in range(0, len(text), 255)]
        return b"".join(bytes([len(string)]) + string for string in strings)
    if kind == "MX":
        preference, host = text.split()
        return struct.pack("!H", int(preference)) + name(host)
    return name(text)

zone = {}
for record in sys.argv[3:]:
    owner, kind, text = (record + " ").split(" ", 2)
    zone.setdefault(owner.lower(), []).append((kind, text.strip()))

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
while True:
    query, client = server.recvfrom(512)
    labels, at = [], 12  # the question comes after the header of 12 octets
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    owner, number = ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0]
    wanted = next((kind for kind in TYPES if TYPES[kind] == number), str(number))
    print("?", owner, wanted)
    records = zone.get(owner, [])
    code = 3 if not records else 2 if records[0][0] == "SERVFAIL" else 0
    found = [(kind, data(kind, text)) for kind, text in records if kind in (wanted, "CNAME")]
    answers = b"".join(
        name(owner) + struct.pack("!HHIH", TYPES[kind], 1, 60, len(octets)) + octets
        for kind, octets in found
    )
    flags = 0x8180 | code  # an answer, recursion desired and available
    header = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
    server.sendto(header + query[12 : at + 5] + answers, client)
