use super::*;

/// Files that are nowhere but here.
fn with(files: &[(&str, &str)], change: impl FnOnce(&mut Request<'_>)) -> Result<Project> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new("/p").join(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let mut request = Request {
        cwd: "/p".into(),
        files: Vec::new(),
        directory: None,
        name: None,
        profiles: Vec::new(),
        env_files: Vec::new(),
        environment: Environment::from([
            ("HOME".to_owned(), "/home/u".to_owned()),
            ("SHELL_VAR".to_owned(), "sh".to_owned()),
        ]),
        interpolate: true,
        resolve_environment: true,
        services: Vec::new(),
        read: &read,
    };
    change(&mut request);
    load(&request)
}

fn loaded(files: &[(&str, &str)]) -> Project {
    with(files, |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn service(text: &str) -> String {
    let project = loaded(&[("compose.yaml", text)]);
    project.node("w").unwrap().json().to_string()
}

fn failure(text: &str) -> String {
    with(&[("compose.yaml", text)], |_| {})
        .map(|_| "no failure".to_owned())
        .unwrap_or_else(|error| error.to_string())
}

#[test]
fn errors_have_places() {
    let table = [
        (
            "services:\n  web:\n    image: x\n    prots: [80]\n",
            "/p/compose.yaml:4:5: services.web additional properties 'prots' not allowed\ndid you mean 'ports'?",
        ),
        ("services:\n  web:\n    image: [x]\n", "/p/compose.yaml:3:12: services.web.image must be a string"),
        (
            "services:\n  web:\n    image: x\n    ports: ['a:b']\n",
            "/p/compose.yaml:4:13: services.web.ports[0]: invalid containerPort: b",
        ),
        (
            "services:\n  web:\n    image: x\n    depends_on: [dv]\n  db: {image: y}\n",
            "/p/compose.yaml:4:18: service \"web\" depends on undefined service \"dv\": invalid compose project\ndid you mean 'db'?",
        ),
        (
            "services:\n  web: {command: x}\n",
            "/p/compose.yaml:2:3: service \"web\" has neither an image nor a build context specified: invalid compose project",
        ),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n",
            "/p/compose.yaml:2:6: dependency cycle detected: a -> b -> a",
        ),
        (
            "services:\n  a: {image: x, volumes: ['data:/x']}\n",
            "/p/compose.yaml:2:27: service \"a\" refers to undefined volume data: invalid compose project",
        ),
        (
            "services:\n  a:\n    image: x${A?needed}\n",
            "/p/compose.yaml:3:12: error while interpolating services.a.image: required variable A is missing a value: needed",
        ),
        (
            "services:\n  a: {image: x, healthcheck: {interval: 3}}\n",
            "/p/compose.yaml:2:41: services.a.healthcheck.interval: invalid duration \"3\"\na duration has units, as in 1h30m or 1.5s",
        ),
        ("services: [a]\n", "/p/compose.yaml:1:11: services must be a mapping"),
        ("- a\n", "/p/compose.yaml:1:1: Top-level object must be a mapping"),
        ("", "empty compose file"),
    ];
    for (text, want) in table {
        assert_eq!(failure(text), want, "{text}");
    }
}

#[test]
fn long_forms() {
    let table = [
        (
            "services: {w: {image: i, environment: [A=1, SHELL_VAR, GONE], command: echo 'a b'}}",
            r#"{"command":["echo","a b"],"environment":{"A":"1","SHELL_VAR":"sh"},"image":"i","networks":{"default":null}}"#,
        ),
        (
            "services: {w: {build: ./sub, network_mode: none, init: 'true', mem_limit: 64m, restart: \"no\"}}",
            r#"{"build":{"context":"/p/sub","dockerfile":"Dockerfile"},"init":true,"mem_limit":67108864,"network_mode":"none","restart":"no"}"#,
        ),
        (
            "services: {w: {image: i, network_mode: none, volumes: [./x:/y, '~/z:/z:ro'], secrets: [s], ulimits: {nofile: 5}}}\nsecrets: {s: {file: ./s.txt}}",
            r#"{"image":"i","network_mode":"none","secrets":[{"source":"s"}],"ulimits":{"nofile":{"hard":5,"soft":5}},"volumes":[{"bind":{"create_host_path":true},"source":"/p/x","target":"/y","type":"bind"},{"bind":{"create_host_path":true},"read_only":true,"source":"/home/u/z","target":"/z","type":"bind"}]}"#,
        ),
        (
            "services: {w: {image: i, links: ['d:db'], network_mode: none}, d: {image: i}}",
            r#"{"depends_on":{"d":{"condition":"service_started","required":true,"restart":true}},"image":"i","links":["d:db"],"network_mode":"none"}"#,
        ),
    ];
    for (text, want) in table {
        assert_eq!(service(text), want, "{text}");
    }
}

#[test]
fn names() {
    let text = "services: {w: {image: i, volumes: ['d:/d']}}\nvolumes: {d: , e: {external: {name: x}}}\nnetworks: {n: {external: true}}";
    let project = loaded(&[("compose.yaml", text)]);
    assert_eq!(project.name, "p");
    assert_eq!(project.networks["default"].name, "p_default");
    assert_eq!(project.networks["n"].name, "n");
    assert_eq!(project.volumes["d"].name, "p_d");
    assert!(project.volumes["e"].external && project.volumes["e"].name == "x");
    let named = loaded(&[(
        "compose.yaml",
        "name: demo-${SHELL_VAR}\nservices: {w: {image: \"$COMPOSE_PROJECT_NAME\"}}",
    )]);
    assert_eq!((named.name.as_str(), named.services["w"].image.as_deref()), ("demo-sh", Some("demo-sh")));
    let wrong = with(&[("compose.yaml", "services: {}")], |request| request.name = Some("A b".to_owned()));
    assert!(wrong.unwrap_err().to_string().starts_with("invalid project name \"A b\""));
}

#[test]
fn several_files() {
    let files = [
        (
            "compose.yaml",
            "services:\n  w: &w {image: i, environment: {A: 1}}\n  v: {<<: *w, image: j}\nx-any: [1, {a: b}]",
        ),
        (
            "compose.override.yaml",
            "services:\n  w: {environment: {B: \"${FROM_ENV}\"}, command: !override [x]}",
        ),
        (".env", "FROM_ENV=dot\nSHELL_VAR=ignored"),
    ];
    let project = loaded(&files);
    let own = &project.services["w"];
    assert_eq!(own.environment["B"].as_deref(), Some("dot"));
    assert_eq!(own.command.as_deref(), Some(&["x".to_owned()][..]));
    assert_eq!(project.services["v"].image.as_deref(), Some("j"));
    assert_eq!(project.environment["SHELL_VAR"], "sh");
    assert_eq!(project.files.len(), 2);
}

#[test]
fn extends_and_includes() {
    let files = [
        (
            "compose.yaml",
            "include:\n  - sub/compose.yaml\n  - {path: [sub2/a.yaml, sub2/b.yaml], project_directory: ., env_file: sub2/own.env}\nservices:\n  w:\n    extends: {file: base/common.yaml, service: web}\n    environment: {B: 2}\n    depends_on: [db]\n  x: {extends: w, image: other}",
        ),
        (
            "base/common.yaml",
            "services:\n  web: {extends: root, environment: {A: 1}}\n  root: {build: ./ctx, cap_add: [NET_ADMIN]}",
        ),
        ("sub/compose.yaml", "services: {db: {image: \"db:${TAG}\", volumes: ['./d:/d']}}"),
        ("sub/.env", "TAG=7"),
        ("sub2/a.yaml", "services: {c: {image: \"c:${OWN}\"}}"),
        ("sub2/b.yaml", "services: {c: {command: [z]}}"),
        ("sub2/own.env", "OWN=9"),
    ];
    let project = loaded(&files);
    let own = &project.services["w"];
    assert_eq!(own.build.as_ref().unwrap().context, "/p/base/ctx");
    assert_eq!(own.cap_add, ["NET_ADMIN"]);
    assert_eq!((own.environment["A"].as_deref(), own.environment["B"].as_deref()), (Some("1"), Some("2")));
    assert_eq!(project.services["x"].image.as_deref(), Some("other"));
    assert_eq!(project.services["db"].image.as_deref(), Some("db:7"));
    assert_eq!(project.services["db"].volumes[0].source.as_deref(), Some("/p/sub/d"));
    assert_eq!(project.services["c"].image.as_deref(), Some("c:9"));
    let absent = failure("include: [no.yaml]\nservices: {a: {image: x}}");
    assert_eq!(absent, "/p/compose.yaml:1:11: open /p/no.yaml: no such file or directory");
    let absent = failure("services: {a: {extends: {file: no.yaml, service: b}}}");
    assert_eq!(absent, "/p/compose.yaml:1:25: open /p/no.yaml: no such file or directory");
    let circle = "services: {a: {extends: b}, b: {extends: a, image: x}}";
    assert!(failure(circle).contains("Circular reference"), "{}", failure(circle));
    let conflict = with(
        &[
            ("compose.yaml", "include: [i.yaml]\nservices: {w: {image: a}}"),
            ("i.yaml", "services: {w: {image: b}}"),
        ],
        |_| {},
    );
    assert!(conflict.unwrap_err().to_string().contains("services.w conflicts with imported resource"));
}

#[test]
fn profiles() {
    let text = "services: {a: {image: i}, b: {image: i, profiles: [debug], depends_on: [c]}, c: {image: i, profiles: [debug]}, d: {image: i, profiles: [x]}}";
    let names = |project: &Project| project.services.keys().cloned().collect::<String>();
    assert_eq!(names(&loaded(&[("compose.yaml", text)])), "a");
    let chosen = |profiles: &[&str], services: &[&str]| {
        let project = with(&[("compose.yaml", text)], |request| {
            request.profiles = profiles.iter().map(|text| (*text).to_owned()).collect();
            request.services = services.iter().map(|text| (*text).to_owned()).collect();
        });
        names(&project.unwrap())
    };
    assert_eq!(chosen(&["debug"], &[]), "abc");
    assert_eq!(chosen(&["*"], &[]), "abcd");
    assert_eq!(chosen(&[], &["b"]), "abc");
    let needs = "services: {a: {image: i, depends_on: [b]}, b: {image: i, profiles: [x]}}";
    assert_eq!(failure(needs), "service b is required by a but is disabled. Can be enabled by profiles [x]");
}

#[test]
fn older_forms() {
    let fig = "web:\n  build: .\n  command: python app.py\n  links: [db]\n  ports: ['8000:8000']\n  volumes: ['data:/data']\ndb:\n  image: postgres\n  net: host\n";
    let project = loaded(&[("fig.yml", fig)]);
    assert_eq!(project.services["web"].network_mode.as_deref(), Some("bridge"));
    assert_eq!(project.services["db"].network_mode.as_deref(), Some("host"));
    assert_eq!(project.volumes["data"].name, "data");
    assert!(project.services["web"].depends_on.contains_key("db"));
    let second = "version: '2.1'\nservices:\n  a: {build: ., dockerfile: D, log_driver: none, depends_on: {b: {condition: service_healthy}}}\n  b: {image: i, volumes_from: ['container:x:ro']}\n";
    let project = loaded(&[("docker-compose.yml", second)]);
    assert_eq!(project.services["a"].build.as_ref().unwrap().dockerfile.as_deref(), Some("D"));
    assert_eq!(project.services["a"].logging.as_ref().unwrap().driver.as_deref(), Some("none"));
}

#[test]
fn environment_files() {
    let files = [
        (
            "compose.yaml",
            "services: {w: {image: i, env_file: [a.env, {path: gone.env, required: false}, {path: r.env, format: raw}], environment: {C: own}, label_file: l.env}}",
        ),
        ("a.env", "A=1\nB=${A}2\nC=file"),
        ("r.env", "R='x'"),
        ("l.env", "role=db"),
    ];
    let project = loaded(&files);
    let own = &project.services["w"];
    let value = |name: &str| own.environment[name].clone().unwrap();
    assert_eq!(
        (value("A"), value("B"), value("C"), value("R")),
        ("1".into(), "12".into(), "own".into(), "'x'".into())
    );
    assert_eq!(own.labels["role"].as_deref(), Some("db"));
    assert_eq!(
        failure("services:\n  w: {image: i, env_file: nope.env}"),
        "/p/compose.yaml:2:27: env file /p/nope.env not found"
    );
    // Only what is meant must be there.
    let two = "services: {w: {image: i, env_file: nope.env}, v: {image: i}, u: {image: i, profiles: [x], env_file: nope.env}}";
    let named = |name: &str| {
        with(&[("compose.yaml", two)], |request| request.services = vec![name.to_owned()]).is_ok()
    };
    assert_eq!((named("v"), named("w"), named("u")), (true, false, false));
}

#[test]
fn tasks_keep_their_places() {
    let project = loaded(&[(
        "compose.yaml",
        "services:\n  b:\n    image: i\n    x-task:\n      schedule: '0 3 * * *'\n      keep: {runs: 50}\n",
    )]);
    let task = project.services["b"].task.as_ref().unwrap();
    assert_eq!(task.get("schedule").unwrap().place.to_string(), "/p/compose.yaml:5:17");
    assert_eq!(task.json().to_string(), r#"{"keep":{"runs":50},"schedule":"0 3 * * *"}"#);
}

#[test]
fn every_file_that_matters_is_known() {
    let project = loaded(&[
        (
            "compose.yaml",
            "include: [sub/other.yaml]\nservices: {w: {extends: {file: base.yaml, service: b}, env_file: [{path: absent.env, required: false}]}}",
        ),
        ("sub/other.yaml", "services: {o: {image: x}}"),
        ("base.yaml", "services: {b: {image: x, env_file: own.env}}"),
        ("own.env", "A=1"),
    ]);
    for name in [
        "compose.yaml",
        "compose.override.yml",
        ".env",
        "sub/other.yaml",
        "sub/.env",
        "base.yaml",
        "own.env",
        "absent.env",
    ] {
        assert!(project.read.contains(&Path::new("/p").join(name)), "{name}: {:?}", project.read);
    }
}

#[test]
fn what_has_no_effect_is_named() {
    let project = loaded(&[(
        "compose.yaml",
        "services: {w: {image: i, isolation: default, build: {context: ., cache_to: [x], sbom: true}, deploy: {placement: {constraints: [a]}}}, v: {image: i, cpus: 1}}",
    )]);
    let keys = ["isolation", "build.sbom", "deploy.placement"];
    assert_eq!(project.warnings, keys.map(|key| format!("services.w.{key} has no effect here")));
}

/// Every key of a service is used somewhere, or named as one that has no effect: no key is dropped in silence.
#[test]
fn every_service_key_is_known_to_the_types() {
    let aside = ["env_file", "extends", "label_file", "isolation"];
    let source = include_str!("../project.rs");
    let start = source.find("pub struct Service {").unwrap();
    let fields = &source[start..start + source[start..].find("\n}").unwrap()];
    for field in crate::schema::SERVICE.iter().filter(|field| !aside.contains(&field.name)) {
        assert!(fields.contains(&format!("pub {}: ", field.name)), "{} is read by nobody", field.name);
    }
}
