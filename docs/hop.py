# A next hop that answers by heart: python3 hop.py ADDRESS PORT WORD=REPLY…
# WORD is how a line of the client begins, or "greeting", or "dot" for the final dot; the
# longest that fits counts. Where a WORD has several REPLY, each is said once, and the last
# one from then on. "/" begins a second line, "3 250 ok" waits 3 seconds, "close" hangs up.
import socketserver, sys, time
replies = {"": ["250 ok"], "greeting": ["220 hop.example"], "DATA": ["354 go on"], "QUIT": ["221 bye"]}
given = {}
for rule in sys.argv[3:]:
    word, _, reply = rule.partition("=")
    given.setdefault(word, []).append(reply)
replies.update(given)

def tell(line):
    sys.stdout.write(line + "\n")  # in one piece, as there may be several connections
    sys.stdout.flush()

class Hop(socketserver.BaseRequestHandler):
    def say(self, heard):
        word = max((word for word in replies if heard.startswith(word)), key=len)
        reply = replies[word].pop(0) if len(replies[word]) > 1 else replies[word][0]
        first, _, rest = reply.partition(" ")
        if len(first) < 3:
            time.sleep(int(first))
            reply = rest
        if reply == "close":
            return True
        for line in reply.split("/"):
            tell("S: " + line)
        self.request.sendall(reply.replace("/", "\r\n").encode() + b"\r\n")
        self.in_message = reply.startswith("354")
        return heard == "QUIT"

    def handle(self):
        over, rest, self.in_message = self.say("greeting"), "", False
        while not over and (octets := self.request.recv(100000)):
            *lines, rest = (rest + octets.decode(errors="replace")).split("\r\n")
            for line in lines:
                tell("C: " + line)
            for line in lines:
                if not self.in_message or line == ".":
                    over = over or self.say("dot" if self.in_message else line)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server((sys.argv[1], int(sys.argv[2])), Hop).serve_forever()
