use super::*;
use model::container::Seccomp;

/// A classic BPF machine, enough for our programs.
fn run(code: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => arch,
        offset => {
            let argument = args[(offset as usize - 16) / 8];
            if (offset - 16) % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = code[at];
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1 + match code {
            LD_W_ABS => {
                accumulator = word(k);
                0
            }
            AND => {
                accumulator &= k;
                0
            }
            JEQ => jump(accumulator == k),
            JGT => jump(accumulator > k),
            JGE => jump(accumulator >= k),
            JA => k as usize,
            RET => return k,
            other => panic!("instruction {other:#x}"),
        };
    }
}

const X64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn caps(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn default_profile() {
    let code = compile(&Seccomp::Default, &caps(&["SYS_CHROOT"])).unwrap().unwrap();
    assert!(code.len() < 1000, "{}", code.len());
    let x64 = |number, arg| run(&code, X64, number, [arg, 0, 0, 0, 0, 0]);
    for (number, arg, want) in [
        (0, 0, ALLOW),                    // read
        (59, 0, ALLOW),                   // execve
        (161, 0, ALLOW),                  // chroot, by its capability
        (165, 0, ERRNO | EPERM),          // mount
        (56, 0x11, ALLOW),                // clone
        (56, 0x1000_0000, ERRNO | EPERM), // clone(CLONE_NEWUSER)
        (435, 0, ERRNO | ENOSYS),         // clone3
        (41, 2, ALLOW),                   // socket(AF_INET)
        (41, 40, ERRNO | EPERM),          // socket(AF_VSOCK)
        (135, 8, ALLOW),                  // personality
        (135, 1 << 32, ERRNO | EPERM),
        (425, 0, ERRNO | EPERM),               // io_uring_setup
        (900, 0, ERRNO | ENOSYS),              // not invented yet
        (0x4000_0000 | 520, 0, ALLOW),         // x32 execve
        (0x4000_0000 | 165, 0, ERRNO | EPERM), // x32 mount
    ] {
        assert_eq!(x64(number, arg), want, "{number} {arg:#x}");
    }
    assert_eq!(run(&code, I386, 11, [0; 6]), ALLOW);
    assert_eq!(run(&code, I386, 21, [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&code, 0xc000_00b7, 0, [0; 6]), KILL);
    let admin = compile(&Seccomp::Default, &caps(&["SYS_ADMIN"])).unwrap().unwrap();
    assert_eq!(run(&admin, X64, 165, [0; 6]), ALLOW);
    assert_eq!(run(&admin, X64, 56, [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn json_profile() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"name":"socket","action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":5,"op":"SCMP_CMP_GE"}]},
        {"names":["chdir"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_KILL"]}}]}"#;
    let code = compile(&Seccomp::Profile(text.to_owned()), &caps(&["KILL"])).unwrap().unwrap();
    let x64 = |number, arg| run(&code, X64, number, [arg, 0, 0, 0, 0, 0]);
    assert_eq!(x64(83, 0), ERRNO | 13);
    assert_eq!(x64(41, 4), ALLOW);
    assert_eq!(x64(41, 5), 0x8000_0000);
    assert_eq!(x64(41, 1 << 40), 0x8000_0000);
    assert_eq!(x64(80, 0), ALLOW);
    assert_eq!(run(&code, I386, 11, [0; 6]), KILL);
    assert!(compile(&Seccomp::Profile("{".to_owned()), &[]).is_err());
}

#[test]
fn comparisons() {
    for (compare, value, argument, holds) in [
        (Compare::Less, 5, 4, true),
        (Compare::Less, 5, 5, false),
        (Compare::Less, 5, 1 << 33, false),
        (Compare::LessOrEqual, 1 << 33, 5, true),
        (Compare::LessOrEqual, 5, 5, true),
        (Compare::Greater, 5, 5, false),
        (Compare::Greater, 5, 1 << 33, true),
        (Compare::Greater, 1 << 33, 5, false),
        (Compare::GreaterOrEqual, 5, 5, true),
        (Compare::NotEqual, 5, 5, false),
        (Compare::NotEqual, 5, 5 | 1 << 33, true),
        (Compare::Masked(0xf0), 0x10, 0x1f, true),
        (Compare::Masked(0xf0), 0x10, 0x2f, false),
    ] {
        let rule = Rule {
            syscall: number_of("read").unwrap(),
            conditions: vec![Condition { index: 2, compare, value }],
            action: ALLOW,
        };
        let code = program(&[rule], ERRNO | 9, Architectures::default());
        let got = run(&code, X64, 0, [0, 0, argument, 0, 0, 0]);
        assert_eq!(got == ALLOW, holds, "{compare:?} {value} {argument}");
    }
}
