//! What `--json` prints: the raw answers, and the merged view that people get as a table.

use serde_json::{Value, json};

use super::ask::Sighting;
use super::fleet::Fleet;

/// One look at the installation as one JSON object; `docs/cli.md` describes its fields.
pub(crate) fn report(sightings: &[Sighting], at_unix_ms: u64) -> Value {
    let answers = sightings.iter().filter_map(|sighting| sighting.answer.as_ref().ok());
    let fleet = Fleet::merge(answers.map(|answer| (answer, true)));
    let proxies: Vec<Value> = sightings.iter().map(proxy).collect();
    json!({
        "at_unix_ms": at_unix_ms,
        "proxies": proxies,
        "nodes": fleet.backends,
        "other_proxies": fleet.proxies,
        "totals": fleet.totals(),
    })
}

fn proxy(sighting: &Sighting) -> Value {
    match &sighting.answer {
        Ok(answer) => json!({
            "asked": sighting.asked, "error": null, "vitals": answer.vitals, "peers": answer.peers,
        }),
        Err(error) => {
            json!({ "asked": sighting.asked, "error": error.to_string(), "vitals": null, "peers": [] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{peer, sighting, silent};
    use super::*;

    #[test]
    fn a_report_has_what_was_said_and_what_it_comes_to() {
        let report = report(&[sighting(vec![peer("a", "ready", 1)]), silent("10.0.0.9:6100")], 17);
        assert_eq!(report["at_unix_ms"], 17);
        assert_eq!(report["proxies"][0]["vitals"]["node_id"], "proxy-1");
        assert_eq!(report["proxies"][0]["peers"][0]["id"], "a");
        let error = report["proxies"][1]["error"].as_str().expect("a sentence");
        assert!(error.starts_with("no proxy answers at 10.0.0.9:6100"), "{error}");
        assert_eq!(report["nodes"][0]["state"], "ready");
        assert_eq!(report["nodes"][0]["reported"]["queue_depth"], 2);
        assert_eq!(report["totals"]["ready"], 1);
    }
}
