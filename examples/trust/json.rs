//! One JSON object a line in, one out, in the same order and with the same `id`.
//!
//! `kind` says what is asked: `spf`, `dkim`, `dmarc`, or `message` for all three. A line
//! that cannot be understood is answered with `error`, and the next one is read.
//!
//! Book: docs/16-trust.md.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ehlo::dns::Resolver;
use ehlo::trust::dkim::{DkimResult, DkimVerdict};
use ehlo::trust::dmarc::{self, DmarcVerdict, Proven};
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use ehlo::trust::results::Verdicts;
use ehlo::trust::spf::{self, Request, SpfResult, SpfVerdict};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::read;

/// How long one line may take, if it does not say so.
const TIMEOUT_MS: u64 = 20_000;

/// Answers each line of standard input, until its end.
pub fn answer_all() -> Result<(), String> {
    for line in io::stdin().lock().split(b'\n') {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let question: Value = serde_json::from_slice(&line).unwrap_or_default();
        let mut answer = answer(&question).unwrap_or_else(|why| json!({ "error": why }));
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("id".to_owned(), question.get("id").cloned().unwrap_or_default());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn answer(question: &Value) -> Result<Value, String> {
    let text = |name: &str| question[name].as_str().unwrap_or_default();
    let servers = match question["resolver"].as_str() {
        Some(server) => {
            vec![server.parse::<SocketAddr>().map_err(|_| "resolver: expected ADDR:PORT")?]
        }
        None => Resolver::system_servers(),
    };
    let timeout = Duration::from_millis(question["timeout_ms"].as_u64().unwrap_or(TIMEOUT_MS));
    let resolver = Resolver::new(servers, timeout);
    let lookups = Lookups::new(&resolver, Instant::now() + timeout);
    let request = || {
        let ip: IpAddr = text("ip").parse().map_err(|_| "ip: expected an address")?;
        Ok::<Request, String>(Request {
            ip,
            helo: text("helo"),
            mail_from: text("mailfrom"),
            receiver: "localhost",
            now: Timestamp::now(),
        })
    };
    let message =
        || BASE64.decode(text("message")).map_err(|_| "message: expected base64".to_owned());
    let steps = &mut Steps::silent();
    match text("kind") {
        "spf" => Ok(spf_json(&spf::check_mail_from(&request()?, &lookups, steps))),
        "dkim" => Ok(dkim_json(&read(&message()?).finish(&lookups, steps))),
        "dmarc" => {
            let dkim = question["dkim"].as_array().cloned().unwrap_or_default();
            let proven = Proven {
                spf: (spf_result(&question["spf"])?, domain(&question["spf"])),
                dkim: dkim
                    .iter()
                    .map(|one| Ok((dkim_result(one)?, domain(one))))
                    .collect::<Result<_, String>>()?,
            };
            let author = Ok(text("from").to_ascii_lowercase());
            Ok(dmarc_json(&dmarc::check(&author, &proven, &lookups, steps)))
        }
        "message" => {
            let verdicts = Verdicts::find(&request()?, read(&message()?), &lookups, steps);
            Ok(json!({
                "spf": spf_json(&verdicts.spf),
                "dkim": dkim_json(&verdicts.dkim),
                "dmarc": dmarc_json(&verdicts.dmarc),
            }))
        }
        _ => Err("expected an object with kind: spf, dkim, dmarc or message".to_owned()),
    }
}

fn spf_json(verdict: &SpfVerdict) -> Value {
    json!({ "result": verdict.result.to_string(), "explanation": verdict.explanation })
}

/// The letter as a whole passes if one signature does; without any its result is `none`.
fn dkim_json(verdicts: &[DkimVerdict]) -> Value {
    let best = verdicts.iter().find(|one| one.result == DkimResult::Pass).or(verdicts.first());
    let all: Vec<Value> = verdicts
        .iter()
        .map(|one| {
            json!({
                "result": one.result.to_string(), "domain": one.domain,
                "selector": one.selector, "why": one.why,
            })
        })
        .collect();
    json!({ "result": best.map_or("none".to_owned(), |one| one.result.to_string()), "dkim": all })
}

fn dmarc_json(verdict: &DmarcVerdict) -> Value {
    json!({
        "result": verdict.result.to_string(), "policy": verdict.policy.to_string(),
        "record": verdict.record,
    })
}

fn domain(proof: &Value) -> &str {
    proof["domain"].as_str().unwrap_or_default()
}

/// What `result` says, in the words of RFC 8601; `none` where it says nothing.
fn spf_result(proof: &Value) -> Result<SpfResult, String> {
    use SpfResult::{Fail, Neutral, None, Pass, PermError, SoftFail, TempError};
    let word = proof["result"].as_str().unwrap_or("none");
    let all = [None, Neutral, Pass, Fail, SoftFail, TempError, PermError];
    all.into_iter()
        .find(|result| result.to_string() == word)
        .ok_or(format!("spf: {word:?} is no result"))
}

/// The same for a signature.
fn dkim_result(proof: &Value) -> Result<DkimResult, String> {
    use DkimResult::{Fail, Neutral, Pass, PermError, Policy, TempError};
    let word = proof["result"].as_str().unwrap_or("neutral");
    // A letter without a signature has proven nothing.
    let word = if word == "none" { "neutral" } else { word };
    let all = [Pass, Fail, Neutral, Policy, TempError, PermError];
    all.into_iter()
        .find(|result| result.to_string() == word)
        .ok_or(format!("dkim: {word:?} is no result"))
}
