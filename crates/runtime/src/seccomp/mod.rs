//! Seccomp profiles (Docker's default, or one in Docker's JSON) to BPF. Pure.
//!
//! System calls whose answer is the same merge into ranges, and a binary tree finds the range: Docker's default is some
//! hundreds of instructions instead of thousands, is made in well under a millisecond and loads as fast. Three
//! architectures: dropping x86 and x32 would change what 32-bit programs may do.

mod profile;
mod table;

use sys::seccomp::Instruction;

pub use profile::compile;

/// `SECCOMP_RET_ALLOW`.
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO`; the low 16 bits are the error.
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `SECCOMP_RET_KILL_THREAD`, what libseccomp does with a foreign architecture.
const KILL: u32 = 0;

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`.
    Masked(u64),
}

/// One condition; all of a rule's must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    index: u32,
    compare: Compare,
    value: u64,
}

/// What happens on a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Index into [`table::SYSCALLS`].
    syscall: usize,
    conditions: Vec<Condition>,
    action: u32,
}

/// Architectures in a filter beside x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Architectures {
    x86: bool,
    x32: bool,
}

fn number_of(name: &str) -> Option<usize> {
    table::SYSCALLS.binary_search_by(|entry| entry.0.cmp(name)).ok()
}

const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JA: u16 = 0x05;
const AND: u16 = 0x54;
const RET: u16 = 0x06;
/// In `jt` or `jf` while a rule is being built: to the rule's end.
const FAIL: u8 = u8::MAX;

fn op(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole program: architecture, then the number, then (some) arguments.
fn program(rules: &[Rule], default: u32, architectures: Architectures) -> Vec<Instruction> {
    const X32_BIT: u32 = 0x4000_0000;
    let x64 = tree(rules, default, |entry| entry.1);
    let x32 =
        if architectures.x32 { tree(rules, default, |entry| entry.3) } else { vec![op(RET, KILL, 0, 0)] };
    let x86 =
        if architectures.x86 { tree(rules, default, |entry| entry.2) } else { vec![op(RET, KILL, 0, 0)] };
    let mut code = vec![
        op(LD_W_ABS, 4, 0, 0),
        op(JEQ, 0xc000_003e, 2, 0), // AUDIT_ARCH_X86_64
        op(JEQ, 0x4000_0003, 2, 0), // AUDIT_ARCH_I386
        op(RET, KILL, 0, 0),
        op(JA, 2, 0, 0),
        op(LD_W_ABS, 0, 0, 0),
        op(JA, (4 + x64.len() + x32.len()) as u32, 0, 0),
        op(LD_W_ABS, 0, 0, 0),
        op(JGE, X32_BIT, 0, 2),
        op(AND, !X32_BIT, 0, 0),
        op(JA, x64.len() as u32, 0, 0),
    ];
    code.extend(x64);
    code.extend(x32);
    code.extend(x86);
    code
}

/// What a range of system call numbers gets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Action(u32),
    /// Code that ends in a return.
    Code(Vec<Instruction>),
}

/// The decision for one architecture, the number being in the accumulator.
fn tree(rules: &[Rule], default: u32, number: impl Fn(&(&str, i16, i16, i16)) -> i16) -> Vec<Instruction> {
    let highest = table::SYSCALLS.iter().map(&number).max().unwrap_or(0);
    let mut numbered: Vec<(u32, &Rule)> = rules
        .iter()
        .filter_map(|rule| Some((u32::try_from(number(&table::SYSCALLS[rule.syscall])).ok()?, rule)))
        .collect();
    // Stable: rules of one call keep their order.
    numbered.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Answer)> = Vec::with_capacity(128);
    let mut push = |first: u32, answer: Answer| {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((first, answer));
        }
    };
    let mut next = 0;
    for rules in numbered.chunk_by(|one, two| one.0 == two.0) {
        let first = rules[0].0;
        if first > next {
            push(next, Answer::Action(default));
        }
        push(first, answer(rules, default));
        next = first + 1;
    }
    if next <= u32::from(highest.unsigned_abs()) {
        push(next, Answer::Action(default));
    }
    // What this table does not know yet does not exist (as runc does): programs fall back to older calls.
    let beyond = if default == ERRNO | EPERM { ERRNO | ENOSYS } else { default };
    ranges.push((highest as u32 + 1, Answer::Action(beyond)));
    search(&ranges)
}

fn answer(rules: &[(u32, &Rule)], default: u32) -> Answer {
    if let Some((_, rule)) = rules.iter().find(|(_, rule)| rule.conditions.is_empty()) {
        return Answer::Action(rule.action);
    }
    let mut code = Vec::new();
    for (_, rule) in rules {
        code.extend(conditional(rule));
    }
    code.push(op(RET, default, 0, 0));
    Answer::Code(code)
}

fn conditional(rule: &Rule) -> Vec<Instruction> {
    let mut code = Vec::new();
    for Condition { index, compare, value } in &rule.conditions {
        let (low, high) = (*value as u32, (*value >> 32) as u32);
        let (load_low, load_high) = (op(LD_W_ABS, 16 + 8 * index, 0, 0), op(LD_W_ABS, 20 + 8 * index, 0, 0));
        match compare {
            Compare::Equal => {
                code.extend([load_high, op(JEQ, high, 0, FAIL), load_low, op(JEQ, low, 0, FAIL)])
            }
            Compare::NotEqual => {
                code.extend([load_high, op(JEQ, high, 0, 2), load_low, op(JEQ, low, FAIL, 0)])
            }
            Compare::Masked(mask) => code.extend([
                load_high,
                op(AND, (mask >> 32) as u32, 0, 0),
                op(JEQ, high, 0, FAIL),
                load_low,
                op(AND, *mask as u32, 0, 0),
                op(JEQ, low, 0, FAIL),
            ]),
            Compare::Greater | Compare::GreaterOrEqual => {
                let last = if *compare == Compare::Greater { JGT } else { JGE };
                code.extend([
                    load_high,
                    op(JGT, high, 3, 0),
                    op(JEQ, high, 0, FAIL),
                    load_low,
                    op(last, low, 0, FAIL),
                ]);
            }
            Compare::Less | Compare::LessOrEqual => {
                let last = if *compare == Compare::Less { JGE } else { JGT };
                code.extend([
                    load_high,
                    op(JGT, high, FAIL, 0),
                    op(JEQ, high, 0, 2),
                    load_low,
                    op(last, low, FAIL, 0),
                ]);
            }
        }
    }
    code.push(op(RET, rule.action, 0, 0));
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        let distance = (end - at - 1) as u8;
        if instruction.jt == FAIL {
            instruction.jt = distance;
        }
        if instruction.jf == FAIL {
            instruction.jf = distance;
        }
    }
    code
}

fn search(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![op(RET, KILL, 0, 0)],
        [(_, Answer::Action(action))] => vec![op(RET, *action, 0, 0)],
        [(_, Answer::Code(code))] => code.clone(),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let (first, left, right) = (right[0].0, search(left), search(right));
            let mut code = match u8::try_from(left.len()) {
                Ok(distance) => vec![op(JGE, first, distance, 0)],
                Err(_) => vec![op(JGE, first, 0, 1), op(JA, left.len() as u32, 0, 0)],
            };
            code.extend(left);
            code.extend(right);
            code
        }
    }
}

#[cfg(test)]
mod tests;
