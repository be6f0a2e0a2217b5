use super::*;

fn refused(body: &str) -> String {
    parse(body.as_bytes()).expect_err("must be refused").to_string()
}

#[test]
fn the_short_form_is_enough() {
    let registration =
        parse(br#"{"id":"backend-id","address":"127.0.0.1:8080","metrics_port":6100}"#)
            .expect("valid");
    assert_eq!(registration.id, "backend-id");
    assert_eq!(registration.metrics_port, 6100);
    assert_eq!(registration.generation, None);
}

#[test]
fn the_nested_form_and_unknown_fields_are_read() {
    let body = br#"{"action":"update","node":{"id":"b","address":"h:1","metrics_port":2,
        "models":[{"id":"m","sha256":"00"}],"generation":7,"colour":"red"}}"#;
    let registration = parse(body).expect("valid");
    assert_eq!(registration.action, Some(Action::Update));
    assert_eq!(registration.generation, Some(Generation(7)));
    assert_eq!(registration.models[0].id, "m");
}

#[test]
fn each_limit_is_named() {
    assert!(refused("{").contains("registration:"));
    assert!(refused(r#"{"id":"a b","address":"h:1","metrics_port":1}"#).contains("`id`"));
    assert!(refused(r#"{"id":"","address":"h:1","metrics_port":1}"#).contains("`id`"));
    assert!(refused(r#"{"id":"a","address":"","metrics_port":1}"#).contains("`address`"));
    assert!(refused(r#"{"id":"a","address":"h:1","metrics_port":0}"#).contains("`metrics_port`"));
    assert!(
        refused(r#"{"id":"a","address":"h:1","metrics_port":1,"protocol":2}"#)
            .contains("`protocol`")
    );
    let newest = u64::MAX;
    assert!(
        refused(&format!(r#"{{"id":"a","address":"h:1","metrics_port":1,"generation":{newest}}}"#))
            .contains("`generation`")
    );
    let long = "x".repeat(129);
    assert!(
        refused(&format!(r#"{{"id":"{long}","address":"h:1","metrics_port":1}}"#)).contains("`id`")
    );
    let many = vec!["c"; 33].join("\",\"");
    assert!(
        refused(&format!(
            r#"{{"id":"a","address":"h:1","metrics_port":1,"capabilities":["{many}"]}}"#
        ))
        .contains("`capabilities`")
    );
}

#[test]
fn a_token_is_never_printed() {
    let body = br#"{"id":"a","address":"h:1","metrics_port":1,"token":"hunter2"}"#;
    let printed = format!("{:?}", parse(body).expect("valid"));
    assert!(!printed.contains("hunter2"), "{printed}");
}
