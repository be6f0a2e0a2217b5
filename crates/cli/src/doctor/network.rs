//! The network: the ports we listen on, and the proxies we register with.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use inferno_shared::Config;
use inferno_shared::config::keys;
use inferno_shared::identity::unix_ms;
use inferno_shared::listener::holder;
use inferno_shared::registration::secrets::Secrets;

use super::Finding;
use crate::nodes::{Asker, Sighting, SilenceKind, duration};

/// How long a proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Two clocks further apart than this make one node's generation older than it is.
const CLOCK_SKEW_MAX_S: u64 = 5;
/// November 2026: this program was not written before.
const EARLIEST_MS: u64 = 1_793_500_000_000;

/// Each address that a process of this machine would listen on.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let listeners = [
        ("proxy.listen", config.proxy.listen),
        ("backend.listen", config.backend.listen),
        ("operations.addr", config.operations.addr),
    ];
    let mut findings: Vec<Finding> = Vec::new();
    for (key, address) in listeners {
        let free = TcpListener::bind(address).map(drop).map_err(|error| error.to_string());
        findings.push(port(key, address, free, holder(address.port())));
    }
    findings
}

/// One address: whether it can be had, and who has it.
fn port(
    key: &'static str,
    address: SocketAddr,
    free: Result<(), String>,
    holder: Option<(u32, String)>,
) -> Finding {
    const CHECK: &str = "port";
    let Err(error) = free else {
        return Finding::ok(CHECK, format!("{key} {address} is free"));
    };
    let variable = keys::find(key).map(keys::Key::variable).unwrap_or_default();
    let another = format!("choose another with {variable}");
    match holder {
        Some((pid, name)) if name.starts_with("inferno") => Finding::ok(
            CHECK,
            format!("{key} {address} is held by {name} (pid {pid}), which is ours"),
        ),
        Some((pid, name)) => Finding::problem(
            CHECK,
            format!("{key} {address} is held by {name} (pid {pid})"),
            format!("stop that, or {another}"),
        ),
        None => Finding::problem(CHECK, format!("{key} {address} cannot be had: {error}"), another),
    }
}

/// Whether the proxies that a backend here would register with can be reached and take our secret,
/// without registering; and whether they could reach us.
pub(super) async fn proxies(config: &Config) -> Vec<Finding> {
    let proxies = &config.backend.proxies;
    if proxies.is_empty() {
        let clock = clock(unix_ms(), None);
        return vec![
            Finding::ok("proxies", "backend.proxies is empty: a backend here registers nowhere"),
            clock,
        ];
    }
    let secrets = Secrets::load(&config.registration.secret_sources()).unwrap_or_default();
    let has_secret = !secrets.is_empty();
    let sightings = Asker::of(proxies, config, secrets, PATIENCE).ask().await;
    let mut findings: Vec<_> =
        sightings.iter().map(|sighting| proxy(sighting, has_secret)).collect();
    findings.extend(bind(config, &sightings));
    let now = unix_ms();
    findings.push(clock(now, sightings.iter().find_map(proxy_clock_ms)));
    findings
}

fn proxy(sighting: &Sighting, has_secret: bool) -> Finding {
    const CHECK: &str = "proxies";
    let asked = &sighting.asked;
    match &sighting.answer {
        Ok(answer) if answer.vitals.service != inferno_proxy::SERVICE => Finding::problem(
            CHECK,
            format!("{asked} is the backend {}, not a proxy", answer.vitals.node_id),
            "backend.proxies wants the operations addresses of proxies",
        ),
        Ok(answer) => {
            let id = &answer.vitals.node_id;
            let takes = if has_secret { "accepts our secret" } else { "asks for no secret" };
            Finding::ok(CHECK, format!("{asked} is {id}, and {takes}"))
        }
        Err(silence) => {
            Finding::problem(CHECK, format!("{asked}: {}", silence.brief()), fix(silence.kind))
        }
    }
}

fn fix(kind: SilenceKind) -> &'static str {
    match kind {
        SilenceKind::Unresolved => "correct the name in backend.proxies, or make it known to DNS",
        SilenceKind::Unreachable => {
            "start the proxy, or open the way from here to its operations port"
        }
        SilenceKind::Unauthorized => "give this node the proxy's secret: registration.secret_file",
        SilenceKind::Stranger => "backend.proxies wants the operations addresses of proxies",
    }
}

/// A proxy of another machine cannot come to our loopback.
fn bind(config: &Config, sightings: &[Sighting]) -> Option<Finding> {
    const CHECK: &str = "bind";
    let is_remote = |sighting: &&Sighting| {
        sighting.asked.parse::<SocketAddr>().is_ok_and(|proxy| !proxy.ip().is_loopback())
    };
    let remote = sightings.iter().find(is_remote)?;
    let ours =
        [("backend.listen", config.backend.listen), ("operations.addr", config.operations.addr)];
    let hidden = ours.into_iter().find(|(_, address)| address.ip().is_loopback());
    Some(match hidden {
        Some((key, address)) => Finding::problem(
            CHECK,
            format!("{key} is {address}, which {} on another machine cannot reach", remote.asked),
            format!(
                "{}=0.0.0.0:{}",
                keys::find(key).map(keys::Key::variable).unwrap_or_default(),
                address.port()
            ),
        ),
        None => Finding::ok(
            CHECK,
            "other machines can reach what we listen on, if no firewall is between",
        ),
    })
}

/// What a proxy's clock says, from when it started and how long that is ago.
fn proxy_clock_ms(sighting: &Sighting) -> Option<u64> {
    let vitals = &sighting.answer.as_ref().ok()?.vitals;
    Some(vitals.generation.0 + vitals.uptime_seconds * 1_000)
}

fn clock(now_ms: u64, proxy_ms: Option<u64>) -> Finding {
    const CHECK: &str = "clock";
    const FIX: &str = "set the clock, and let NTP keep it (`timedatectl set-ntp true`)";
    if now_ms < EARLIEST_MS {
        return Finding::problem(CHECK, "the clock is before this program was written", FIX);
    }
    let Some(proxy_ms) = proxy_ms else {
        return Finding::ok(CHECK, "plausible; no proxy to compare it with");
    };
    let apart = now_ms.abs_diff(proxy_ms) / 1_000;
    match apart > CLOCK_SKEW_MAX_S {
        true => Finding::warning(
            CHECK,
            format!(
                "{} {} the proxy's: generations are clock times, and the older one is refused",
                duration(apart),
                if now_ms > proxy_ms { "ahead of" } else { "behind" }
            ),
            FIX,
        ),
        false => Finding::ok(CHECK, "within seconds of the proxy's"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::nodes::testing::{peer, sighting, silent};

    #[test]
    fn a_taken_port_is_a_problem_unless_it_is_ours() {
        let address = ([127, 0, 0, 1], 8080).into();
        let taken = || Err("in use".to_owned());
        let judge = |free, holder: Option<&str>| {
            port("proxy.listen", address, free, holder.map(|name| (7, name.to_owned())))
        };
        assert_eq!(judge(Ok(()), None).verdict, Verdict::Ok);
        assert_eq!(judge(taken(), Some("inferno-proxy")).verdict, Verdict::Ok);
        let foreign = judge(taken(), Some("nginx"));
        assert_eq!(foreign.verdict, Verdict::Problem);
        assert!(foreign.text.contains("nginx (pid 7)"), "{foreign:?}");
        assert!(foreign.fix.expect("a fix").contains("INFERNO_PROXY__LISTEN"));
        assert_eq!(judge(taken(), None).verdict, Verdict::Problem);
    }

    #[test]
    fn a_real_port_that_somebody_holds_is_found() {
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut config = Config::default();
        config.proxy.listen = held.local_addr().expect("bound");
        let finding = &ports(&config)[0];
        // The holder is this test program, whose name begins with ours.
        assert!(finding.text.contains(&format!("pid {}", std::process::id())), "{finding:?}");
    }

    #[test]
    fn proxies_are_reached_or_not_or_are_none() {
        let reached = sighting(vec![peer("a", "ready", 1)]);
        assert_eq!(proxy(&reached, true).verdict, Verdict::Ok);
        let silent = silent("a:1");
        assert_eq!(proxy(&silent, true).verdict, Verdict::Problem);
        let mut backend = reached;
        if let Ok(answer) = &mut backend.answer {
            answer.vitals.service = "inferno-backend".into();
        }
        assert!(proxy(&backend, true).text.contains("not a proxy"));
    }

    #[test]
    fn loopback_addresses_and_remote_proxies_do_not_go_together() {
        let mut remote = sighting(Vec::new());
        remote.asked = "10.0.0.1:6100".into();
        let mut config = Config::default();
        assert_eq!(bind(&config, &[sighting(Vec::new())]), None);
        let hidden = bind(&config, std::slice::from_ref(&remote)).expect("a finding");
        assert_eq!(hidden.fix.as_deref(), Some("INFERNO_BACKEND__LISTEN=0.0.0.0:8080"));
        config.backend.listen = ([0, 0, 0, 0], 8080).into();
        config.operations.addr = ([0, 0, 0, 0], 6100).into();
        assert_eq!(bind(&config, &[remote]).expect("a finding").verdict, Verdict::Ok);
    }

    #[test]
    fn clocks_are_compared_with_the_proxys() {
        let now = EARLIEST_MS + 100_000;
        assert_eq!(clock(EARLIEST_MS - 1, None).verdict, Verdict::Problem);
        assert_eq!(clock(now, None).verdict, Verdict::Ok);
        assert_eq!(clock(now, Some(now + 4_000)).verdict, Verdict::Ok);
        let behind = clock(now, Some(now + 90_000));
        assert!(behind.text.starts_with("1 min 30 s behind"), "{behind:?}");
        assert_eq!(behind.verdict, Verdict::Warning);
        assert!(clock(now, Some(now - 90_000)).text.contains("ahead of"));
        let mut proxy = sighting(Vec::new());
        if let Ok(answer) = &mut proxy.answer {
            answer.vitals.generation.0 = 5_000;
            answer.vitals.uptime_seconds = 7;
        }
        assert_eq!(proxy_clock_ms(&proxy), Some(12_000));
    }
}
