use super::*;
use serde_json::json;

#[test]
fn everything() {
    let definition = Definition::parse(&json!({
        "each": {"label": "role=database", "link": "database"}, "volumes_from": false, "schedule": "0 3 * * *",
        "timezone": "Europe/Berlin", "jitter": "5m", "missed": "once", "overlap": "forbid", "timeout": "10m",
        "retries": {"max": 3, "backoff": "10s"}, "parallel": 8, "before": {"exec": ["sync"]}, "on_success": ["prune"],
        "on_failure": ["page"], "keep": {"runs": 50}, "resources": {"memory": "64m", "cpus": 0.5},
        "notify": {"command": "logger done", "on": "failure"},
    }))
    .unwrap();
    assert_eq!(definition.each.unwrap().label, ["role=database"]);
    assert_eq!(definition.timeout, Some(Duration::from_secs(600)));
    assert_eq!(definition.retries.wait(2), Duration::from_secs(10));
    assert_eq!(definition.retries.wait(4), Duration::from_secs(40));
    assert_eq!(definition.retries.wait(90), Duration::from_secs(3600));
    assert_eq!(definition.before, [Step::Exec { command: vec!["sync".to_owned()], undo: Vec::new() }]);
    assert_eq!((definition.keep.runs, definition.parallel), (50, 8));
    assert_eq!(
        definition.resources,
        Resources { memory: Some(64 << 20), nano_cpus: Some(500_000_000), pids: None }
    );
    assert_eq!(definition.notify.command, ["/bin/sh", "-c", "logger done"]);
    assert_eq!(definition.schedule.unwrap().jitter, Duration::from_secs(300));
}

#[test]
fn helpers() {
    let once = |value| Definition::parse(&value).map(|definition| definition.once);
    assert_eq!(
        once(json!({"once": "dbdata"})),
        Ok(Some(Once { volume: "dbdata".to_owned(), version: None }))
    );
    assert_eq!(once(json!({"once": "dbdata", "version": 3})).unwrap().unwrap().version, Some(3));
    assert_eq!(once(json!(null)), Ok(None));
}

#[test]
fn shapes() {
    let steps = |value| Definition::parse(&json!({"each": {"name": "a"}, "before": value})).unwrap().before;
    assert_eq!(steps(json!("pause")), [Step::Pause]);
    assert_eq!(steps(json!([{"exec": "sync"}, {"stop": true}])).len(), 2);
    let each =
        Definition::parse(&json!({"each": {"label": {"role": "db", "x": null}}})).unwrap().each.unwrap();
    assert_eq!(each.label, ["role=db", "x"]);
    assert_eq!(Definition::parse(&json!({"retries": 2})).unwrap().retries.max, 2);
    assert_eq!(
        Definition::parse(&json!({"each": {"name": "a"}, "volumes_from": true})).unwrap().volumes_from,
        VolumesFrom::ReadWrite
    );
    assert_eq!(Definition::parse(&json!({"keep": {"age": "30d"}})).unwrap().keep.runs, u64::MAX >> 1);
}

#[test]
fn refused() {
    for (value, text) in [
        (json!([]), "x-task: want a mapping"),
        (json!({"shedule": "@daily"}), "x-task.shedule: unknown key; did you mean schedule?"),
        (json!({"each": {"label": "a", "lnik": "b"}}), "x-task.each.lnik: unknown key; did you mean link?"),
        (json!({"each": {}}), "x-task.each: select containers by label, name, network, service or image"),
        (
            json!({"each": {"name": "a", "link": "a b"}}),
            "x-task.each.link: \"a b\" is not a name that a container can be linked under",
        ),
        (json!({"schedule": "61 * * * *"}), "x-task.schedule: \"61\" is not a minute (0 to 59)"),
        (
            json!({"schedule": "@daily", "timezone": "Berlin"}),
            "x-task.timezone: \"Berlin\" is not a time zone: use a name such as Europe/Berlin or UTC",
        ),
        (json!({"jitter": "5m"}), "x-task.jitter: there is no schedule that it belongs to"),
        (
            json!({"timeout": "10"}),
            "x-task.timeout: \"10\" is not a duration: write 10s, 5m, 1h30m, 2d or 1w",
        ),
        (json!({"overlap": "maybe"}), "x-task.overlap: \"maybe\" is none of forbid, allow, replace"),
        (json!({"retries": {"max": -1}}), "x-task.retries.max: \"-1\" is not a whole number from 0 to 1000"),
        (
            json!({"each": {"name": "a"}, "parallel": 0}),
            "x-task.parallel: \"0\" is not a whole number from 1 to 256",
        ),
        (json!({"version": 3}), "x-task.version: only a helper (once: VOLUME) has a version"),
        (
            json!({"each": {"name": "a"}, "before": "reboot"}),
            "x-task.before: \"reboot\" is not a step: want pause, stop or {exec: [COMMAND]}",
        ),
        (
            json!({"each": {"name": "a"}, "after": "stop"}),
            "x-task.after: after the task only commands are run: want {exec: [COMMAND]}",
        ),
        (
            json!({"notify": {"webhook": "ftp://x"}}),
            "x-task.notify.webhook: want an http:// or https:// address",
        ),
        (json!({"parallel": 2}), "x-task.parallel: there is no target that it is for: say which with each"),
        (json!({"before": "pause"}), "x-task.before: there is no target that it is for: say which with each"),
        (
            json!({"once": "data", "notify": {"command": "true"}}),
            "x-task.notify: nothing follows a helper: whoever needs it waits for it",
        ),
        (
            json!({"once": "data", "on_success": ["next"]}),
            "x-task.on_success: nothing follows a helper: whoever needs it waits for it",
        ),
    ] {
        assert_eq!(Definition::parse(&value).unwrap_err().to_string(), text);
    }
}

#[test]
fn backups() {
    let parse = |value| Definition::parse(&json!({ "backup": value }));
    let mut backup = parse(json!({"to": "../dumps", "verify": "check", "keep": {"count": 3, "age": "30d"},
        "encrypt": {"recipients": "age1x", "identity": "key"}}))
    .unwrap()
    .backup
    .unwrap();
    assert_eq!(
        (backup.mount.as_str(), backup.keep.count, backup.restore.as_deref()),
        ("/backups", Some(3), None)
    );
    backup.resolve(std::path::Path::new("/p"));
    assert_eq!(backup.to, std::path::Path::new("/p/../dumps"));
    assert_eq!(backup.encrypt.unwrap().identity.unwrap(), std::path::Path::new("/p/key"));
    for (value, wrong) in [
        (json!({}), "x-task.backup.to: want the directory"),
        (json!({"to": "/a", "mount": "b"}), "x-task.backup.mount: \"b\" is not an absolute path"),
        (json!({"to": "/a", "encrypt": {}}), "x-task.backup.encrypt: say for whom"),
        (json!({"to": "/a", "keep": {"count": 0}}), "x-task.backup.keep.count: \"0\" is not a whole number"),
        (json!({"to": "/a", "verfy": "x"}), "x-task.backup.verfy: unknown key; did you mean verify?"),
    ] {
        let error = parse(value).unwrap_err().to_string();
        assert!(error.starts_with(wrong), "{error}");
    }
    let helper = Definition::parse(&json!({"once": "v", "backup": {"to": "/a"}})).unwrap_err();
    assert!(helper.to_string().starts_with("x-task.backup: nothing follows a helper"), "{helper}");
}
