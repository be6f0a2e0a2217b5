//! Which form of the metrics an `Accept` header prefers (RFC 9110, section 12.5.1).

/// Whether Prometheus text is preferred to JSON.
///
/// JSON without `Accept`, with `*/*`, or at a tie; text when a text type is named with a greater
/// quality than JSON, as a stock Prometheus does.
pub(super) fn prefers_text(accept: Option<&str>) -> bool {
    let Some(accept) = accept else { return false };
    let text = quality(accept, &["text/plain", "application/openmetrics-text", "text/*"]);
    let json = quality(accept, &["application/json", "application/*"]);
    text > json
}

/// The greatest quality given to any of `types`; 0 if none is named.
fn quality(accept: &str, types: &[&str]) -> f32 {
    accept
        .split(',')
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let q =
                parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            types.contains(&name.as_str()).then_some(q)
        })
        .fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::prefers_text;

    #[test]
    fn json_unless_text_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, text) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), false),
            (Some("text/plain"), true),
            (Some("TEXT/PLAIN; version=0.0.4"), true),
            (Some(prometheus), true),
            (Some("application/json, text/plain;q=0.5"), false),
            (Some("application/json;q=0.5, text/plain"), true),
            (Some("text/plain;q=0"), false),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), false),
            (Some(""), false),
        ] {
            assert_eq!(prefers_text(accept), text, "{accept:?}");
        }
    }
}
