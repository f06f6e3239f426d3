use std::collections::{BTreeMap, BTreeSet};

use super::effect;
use super::expand::Lexer;
use super::instruction::Instruction;
use super::plan::{Origin, Plan};
use super::scope::{Global, Platforms, Scope};
use super::{parse, syntax};
use crate::image::{ImageConfig, Platform};

fn amd64() -> Platform {
    Platform { architecture: "amd64".into(), os: "linux".into(), variant: None }
}

fn global(args: &[(&str, Option<&str>)], given: &[(&str, &str)]) -> Global {
    let args: Vec<_> = args.iter().map(|(n, v)| ((*n).to_owned(), v.map(str::to_owned))).collect();
    let given: BTreeMap<_, _> = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let platforms = Platforms { build: &amd64(), target: &amd64() };
    Global::new(&args, &given, platforms, "", '\\').unwrap()
}

#[test]
fn expansions() {
    let env = |name: &str| match name {
        "v" => Some("a.b.c".to_owned()),
        "empty" => Some(String::new()),
        "path" => Some("/usr/lib/x.so".to_owned()),
        _ => None,
    };
    for (text, want) in [
        ("$v", "a.b.c"),
        ("${unset-d}${empty-d}${empty:-d}", "dd"),
        ("${v+x}${empty+y}${empty:+z}${unset+w}", "xy"),
        ("${v#*.}|${v##*.}|${v%.*}|${v%%.*}", "b.c|c|a.b|a"),
        ("${path##*/}", "x.so"),
        ("${v/./-}|${v//./-}|${v//./}", "a-b.c|a-b-c|abc"),
        ("${v/?.?/X}", "X.c"),
        (r"${v//\./_}", "a_b_c"),
        ("${unset:-${v%%.*}}", "a"),
        (r#"'$v' "$v" \$v"#, "$v a.b.c $v"),
    ] {
        assert_eq!(Lexer::new('\\').word(text, &env).unwrap(), want, "{text}");
    }
    for bad in
        ["${", "${}", "${v", "${v:x}", "${unset?}", "${empty:?no}", "'", "\"", "${v^}", &"${a:-".repeat(100)]
    {
        assert!(Lexer::new('\\').word(bad, &env).is_err(), "{bad}");
    }
    let doubled = "$v".repeat(1 << 18);
    let long = move |_: &str| Some("x".repeat(1 << 10));
    assert!(Lexer::new('\\').word(&doubled, &long).is_err());
}

#[test]
fn errors_name_the_line_and_what_was_meant() {
    for (text, line, part) in [
        ("FROM a\nRUNN x", 2, "unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a\nENTRYPOINT x\n[\"a\", \"b\"]", 3, "did you mean CMD or ENTRYPOINT"),
        ("FROM a\nCOPY --form=x a b", 2, "unknown flag: --form (did you mean --from?)"),
        ("FROM a\n\n# c\nENV x", 4, "ENV must have two arguments"),
        ("RUN x", 1, "no build stage in current context"),
        ("FROM a\nCOPY x", 2, "requires at least two arguments"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc"),
        ("FROM a\nONBUILD FROM b", 2, "isn't allowed as an ONBUILD trigger"),
        ("FROM a\nCMD [1]", 2, "arrays must be comprised of strings only"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 1, "invalid name for build stage"),
        ("FROM a\nHEALTHCHECK FOO x", 2, "Unknown type \"FOO\""),
        ("FROM a\nRUN --mount=typo=bind x", 2, "unexpected key 'typo'"),
        ("FROM a\nRUN --security=none x", 2, "is not valid"),
        ("FROM a\nRUN --mount=type=bind,from=$x,target=/x y", 2, "define alias stage instead"),
        ("FROM a\nCOPY --chmod=u+q x y", 2, "invalid chmod parameter"),
        ("FROM a\nADD --checksum=sha256:0 x y", 2, "checksum can't be specified for non-HTTP(S)"),
        ("# escape=x\nFROM a", 1, "invalid escape token"),
        ("FROM a\nSHELL x", 2, "JSON form"),
    ] {
        let error = parse("Dockerfile", text).unwrap_err();
        assert!(error.message().contains(part), "{text:?}: {}", error.message());
        assert!(
            error.message().starts_with(&format!("dockerfile parse error on line {line}:")),
            "{text:?}: {}",
            error.message()
        );
        assert!(
            error.hint_text().unwrap().contains(&format!("Dockerfile:{line}:")),
            "{text:?}: {:?}",
            error.hint_text()
        );
    }
    let shown = |text: &str| parse("D", text).unwrap_err().hint_text().unwrap_or_default().to_owned();
    assert_eq!(shown("FROM a\nRUNN x"), "D:2:1\n>    2 | RUNN x\n       | ^^^^");
    assert_eq!(
        shown("FROM a\n\tCOPY --form=x a b"),
        "D:2:7\n>    2 | \tCOPY --form=x a b\n       | \t     ^^^^^^"
    );
    assert_eq!(parse("D", "# only\n").unwrap_err().message(), "D: file with no instructions");
}

#[test]
fn heredocs() {
    let text = "FROM a\nRUN <<-EOF cat > /x && <<'B' cat\n\tone\n\tEOF\ntwo $v\nB\nCOPY <<\"Q\" <<F /d/\nq$v\nQ\nf$v\nF\nRUN <<EOF\n#!/bin/python\nprint()\nEOF\nRUN <<EOF\necho a\necho b\nEOF\n";
    let file = parse("D", text).unwrap();
    let steps = &file.stages[0].steps;
    let script = |index: usize| match &steps[index].instruction {
        Instruction::Run(run) => effect::script(run, &ImageConfig::default().config).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(script(0).argv[2], "<<-EOF cat > /x && <<'B' cat\n\tone\nEOF\ntwo $v\nB");
    assert_eq!(script(2).argv[2], "/dev/pipes/EOF");
    assert_eq!(script(2).file.unwrap().1, "#!/bin/python\nprint()\n");
    assert_eq!(script(3).argv[2], "echo a\necho b\n");
    let scope = Scope { env: vec!["v=1".into()], ..Scope::default() };
    let Instruction::Copy(copy) = scope.expanded(&steps[1].instruction, '\\').unwrap() else { panic!() };
    let files: Vec<_> = copy.files.iter().map(|f| (f.name.as_str(), f.content.as_str())).collect();
    assert_eq!(files, [("Q", "q$v\n"), ("F", "f1\n")]);
}

#[test]
fn stages_targets_and_arguments() {
    let text = "ARG BASE=busybox\nFROM $BASE AS one\nRUN a\nFROM scratch AS two\nFROM one AS three\nCOPY --from=two x y\nFROM x AS four\nCOPY --from=0 a b\nRUN --mount=type=bind,from=three b";
    let file = parse("D", text).unwrap();
    let global = global(&[("BASE", Some("busybox"))], &[("BASE", "debian")]);
    let plan = |target: &str| Plan::new(&file, &global, target, &BTreeSet::new(), ("D", text));
    let whole = plan("").unwrap();
    assert_eq!(
        whole.bases,
        [Origin::Named("debian".into()), Origin::Scratch, Origin::Stage(0), Origin::Named("x".into())]
    );
    assert_eq!(whole.order, [0, 1, 2, 3]);
    assert_eq!(plan("two").unwrap().order, [1]);
    assert_eq!(plan("THREE").unwrap().order, [0, 1, 2]);
    assert_eq!(plan("0").unwrap().target, 0);
    assert!(plan("thre").unwrap_err().message().contains("did you mean three?"));

    let mut scope = Scope { env: vec!["E=env".into()], ..Scope::default() };
    assert_eq!(scope.declare("BASE", None, &global).as_deref(), Some("debian"));
    assert_eq!(scope.declare("TARGETARCH", None, &global).as_deref(), Some("amd64"));
    scope.declare("E", Some("arg"), &global);
    scope.declare("NONE", None, &global);
    assert_eq!(scope.get("E").as_deref(), Some("arg"));
    assert_eq!(
        effect::run_text(&["x".to_owned()], &scope),
        "RUN |4 BASE=debian TARGETARCH=amd64 E=arg NONE= x # buildkit"
    );
    scope.hide("E");
    assert_eq!(scope.get("E").as_deref(), Some("env"));
    assert_eq!(scope.get("NONE"), None);
}

#[test]
fn effects_and_history() {
    let text = "FROM x\nCMD a\nENTRYPOINT [\"e\"]\nENV a=b c=\"d e\"\nENV a 2\nEXPOSE 80 53/udp 1-2\nVOLUME ['/mnt']\nMAINTAINER me\nSTOPSIGNAL SIGQUIT\nUSER u:g\nLABEL k=v\nHEALTHCHECK --interval=1m5s --timeout=500ms CMD x y\nONBUILD RUN z\nSHELL [\"/bin/ash\", \"-c\"]\nCMD s";
    let mut config = ImageConfig::default();
    config.config.cmd = Some(vec!["old".into()]);
    let (mut set, mut history) = (false, Vec::new());
    for step in &parse("D", text).unwrap().stages[0].steps {
        let scope = Scope { env: config.config.env.clone(), ..Scope::default() };
        let expanded = scope.expanded(&step.instruction, '\\').unwrap();
        history.extend(effect::apply(&mut config, &expanded, &mut set).unwrap());
    }
    assert_eq!(
        history,
        [
            "CMD [\"/bin/sh\" \"-c\" \"a\"]",
            "ENTRYPOINT [\"e\"]",
            "ENV a=b c=d e",
            "ENV a=2",
            "EXPOSE [1/tcp 2/tcp 53/udp 80/tcp]",
            "VOLUME [[/mnt]]",
            "MAINTAINER me",
            "STOPSIGNAL SIGQUIT",
            "USER u:g",
            "LABEL k=v",
            "HEALTHCHECK &{[\"CMD-SHELL\" \"x y\"] \"1m5s\" \"500ms\" \"0s\" \"0s\" '\\x00'}",
            "SHELL [/bin/ash -c]",
            "CMD [\"/bin/ash\" \"-c\" \"s\"]",
        ]
    );
    assert_eq!(config.config.env, ["a=2", "c=d e"]);
    let mut inherited = ImageConfig::default();
    inherited.config.cmd = Some(vec!["old".into()]);
    let entrypoint = parse("D", "FROM x\nENTRYPOINT e").unwrap().stages[0].steps[0].instruction.clone();
    effect::apply(&mut inherited, &entrypoint, &mut false).unwrap();
    assert_eq!(inherited.config.cmd, None);
}

/// Go's `strconv.Quote`.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 32 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn dump(node: &syntax::Node) -> String {
    let mut out = format!("({}", node.keyword);
    if !node.flags.is_empty() {
        let flags: Vec<_> = node.flags.iter().map(|flag| go_quote(flag)).collect();
        out += &format!(" [{}]", flags.join(" "));
    }
    if let Some(child) = &node.child {
        out += &format!(" {}", dump(child));
    }
    for arg in &node.args {
        out += &format!(" {}", go_quote(arg));
    }
    out + ")"
}

#[allow(clippy::print_stderr)]
/// BuildKit's own cases, where a checkout has them beside it. They are compared in full, in their notation.
#[test]
fn buildkits_cases() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = std::env::var_os("CAULDRON_TESTDATA").map(std::path::PathBuf::from);
    let dir = beside.unwrap_or_else(|| crates.join("../../../shared/testdata")).join("dockerfile");
    if !dir.is_dir() {
        eprintln!(
            "{}: not there; BuildKit's own cases were not compared (set CAULDRON_TESTDATA)",
            dir.display()
        );
        return;
    }
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(dir.join("testfiles")).unwrap() {
        let case = entry.unwrap().path();
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let want = std::fs::read_to_string(case.join("result")).unwrap();
        let got = match syntax::parse("Dockerfile", &text) {
            Ok(syntax) => syntax.nodes.iter().map(dump).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        };
        if got.trim() != want.trim() {
            failures.push(format!("{}:\n want {want}\n got  {got}", case.display()));
        }
    }
    for entry in std::fs::read_dir(dir.join("testfiles-negative")).unwrap() {
        let case = entry.unwrap().path();
        if parse("Dockerfile", &std::fs::read_to_string(case.join("Dockerfile")).unwrap()).is_ok() {
            failures.push(format!("{}: was accepted", case.display()));
        }
    }
    let env = |name: &str| match name {
        "PWD" => Some("/home".to_owned()),
        "SHELL" => Some("bash".to_owned()),
        "KOREAN" => Some("한국어".to_owned()),
        "NULL" => Some(String::new()),
        _ => None,
    };
    for line in std::fs::read_to_string(dir.join("envVarTest")).unwrap().lines() {
        let Some((platform, rest)) = line.split_once('|').filter(|(platform, _)| !platform.starts_with('#'))
        else {
            continue;
        };
        if platform == "W" {
            continue;
        }
        let (text, want) = rest.rsplit_once('|').unwrap();
        let got = Lexer::new('\\').word(text.trim(), &env).unwrap_or_else(|_| "error".to_owned());
        if got != want.trim() {
            failures.push(format!("envVarTest {line}: got {got}"));
        }
    }
    let mut set: Vec<(String, String)> = Vec::new();
    for line in std::fs::read_to_string(dir.join("wordsTest")).unwrap().lines() {
        if let Some(pair) = line.strip_prefix("ENV ") {
            let (name, value) = pair.trim_start().split_once('=').unwrap();
            set.insert(0, (name.to_owned(), value.to_owned()));
        } else if let Some((text, want)) = line.split_once('|').filter(|_| !line.starts_with('#')) {
            let get = |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            let got = Lexer::new('\\')
                .words(text.trim(), &get)
                .map_or_else(|_| "error".to_owned(), |words| words.join(","));
            if got != want.trim_start() {
                failures.push(format!("wordsTest {line}: got {got}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_number_in_from_is_a_stage_that_stands_before() {
    for (text, line, wanted) in [
        ("FROM a\nCOPY --from=5 x y", 2, "invalid stage index 5: no stage stands before this one"),
        (
            "FROM a\nFROM b\nCOPY --from=1 x y",
            3,
            "invalid stage index 1: the stages before this one are 0 to 0",
        ),
        ("FROM a\nRUN --mount=type=bind,from=7 b", 2, "invalid stage index 7"),
    ] {
        let file = parse("D", text).unwrap();
        let error = Plan::new(&file, &global(&[], &[]), "", &BTreeSet::new(), ("D", text)).unwrap_err();
        assert!(error.message().contains(wanted), "{error}");
        assert!(error.message().contains(&format!("line {line}")), "{error}");
    }
    let named = "FROM a AS five\nFROM b\nCOPY --from=five x y\nCOPY --from=0 x y\nCOPY --from=image x y";
    let plan = |replaced: &[&str]| {
        let replaced = replaced.iter().map(|name| (*name).to_owned()).collect();
        Plan::new(&parse("D", named).unwrap(), &global(&[], &[]), "", &replaced, ("D", named)).unwrap()
    };
    assert_eq!(plan(&[]).needs[1], [0, 0]);
    // A context of the same name stands for the stage.
    assert_eq!(plan(&["five"]).needs[1], [0]);
}
