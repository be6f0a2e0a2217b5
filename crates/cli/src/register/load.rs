//! How busy an engine is, from its own `/metrics`: Prometheus text, read leniently.
//!
//! Whatever is not one of the few names we know is passed over, be it well-formed or not; the text has
//! been cut to a stated size before it comes here.

/// An engine's own load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct EngineLoad {
    /// Requests being computed.
    pub(crate) running: u64,
    /// Requests waiting for it.
    pub(crate) waiting: u64,
    /// Percent of the KV cache in use, where the engine says.
    pub(crate) kv_cache_percent: f64,
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Requests being computed, to be added up over models and engines.
    Running,
    /// Requests that wait, to be added up.
    Waiting,
    /// A share of the KV cache, 0 to 1; of several the fullest counts.
    KvCache,
}

/// The names, by the engines' own documentation.
const NAMES: &[(&str, Reading)] = &[
    ("vllm:num_requests_running", Reading::Running),
    ("vllm:num_requests_waiting", Reading::Waiting),
    ("vllm:kv_cache_usage_perc", Reading::KvCache),
    // Older versions of vLLM.
    ("vllm:gpu_cache_usage_perc", Reading::KvCache),
    ("llamacpp:requests_processing", Reading::Running),
    ("llamacpp:requests_deferred", Reading::Waiting),
    // Older versions of llama.cpp.
    ("llamacpp:kv_cache_usage_ratio", Reading::KvCache),
    ("sglang:num_running_reqs", Reading::Running),
    ("sglang:num_queue_reqs", Reading::Waiting),
    ("sglang:token_usage", Reading::KvCache),
    ("tgi_batch_current_size", Reading::Running),
    ("tgi_queue_size", Reading::Waiting),
];

/// The load that `text` tells of; none if it has none of the names we know.
pub(crate) fn parse(text: &str) -> Option<EngineLoad> {
    let samples: Vec<(Reading, f64)> = text.lines().filter_map(sample).collect();
    let of = |wanted| samples.iter().filter(move |(reading, _)| *reading == wanted);
    let sum = |wanted| of(wanted).map(|(_, value)| value).sum::<f64>().round() as u64;
    let fullest = of(Reading::KvCache).map(|(_, share)| *share).fold(0.0, f64::max);
    (!samples.is_empty()).then(|| EngineLoad {
        running: sum(Reading::Running),
        waiting: sum(Reading::Waiting),
        kv_cache_percent: fullest.min(1.0) * 100.0,
    })
}

/// `name{labels} value [timestamp]`, if the name is known and the value is a number that makes sense.
fn sample(line: &str) -> Option<(Reading, f64)> {
    let line = line.trim();
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (_, reading) = NAMES.iter().find(|(known, _)| *known == name)?;
    let rest = if rest.starts_with('{') { after_labels(rest)? } else { rest };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((*reading, value))
}

/// What follows `{…}`. A label's value may hold a brace, and an escaped quote.
fn after_labels(text: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(running: u64, waiting: u64, kv_cache_percent: f64) -> Option<EngineLoad> {
        Some(EngineLoad { running, waiting, kv_cache_percent })
    }

    #[test]
    fn llama_servers_page_is_read() {
        let text = "\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 5
llamacpp:n_busy_slots_per_decode 1.5
";
        assert_eq!(parse(text), load(2, 5, 0.0));
    }

    #[test]
    fn vllms_engines_are_added_up_and_the_fullest_cache_counts() {
        let text = r#"
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="odd \"}\" name"} 4.0 1700000000000
vllm:num_requests_waiting{engine="0",model_name="a"} 1e1
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:num_requests_running_of_another_kind 9
"#;
        assert_eq!(parse(text), load(7, 10, 50.0));
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        for text in ["", "<html>", "http_requests_total 5", "vllm:num_requests_running", "{} 1"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for value in ["NaN", "-1", "+Inf", "many", "", "{"] {
            let text = format!("vllm:num_requests_running {value}\nvllm:num_requests_waiting 1\n");
            assert_eq!(parse(&text), load(0, 1, 0.0), "{value}");
        }
        assert_eq!(parse("vllm:num_requests_running{a=\"b} 3"), None, "a label without its end");
        assert_eq!(parse("vllm:kv_cache_usage_perc 7"), load(0, 0, 100.0));
        assert_eq!(parse("tgi_queue_size 1e300"), load(0, u64::MAX, 0.0));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(vllm:num_requests_running|[a-z{}\"\\\\ 0-9é\n])*") {
            let _ = parse(&text);
        }
    }
}
