//! From a profile to a program.

use std::collections::HashMap;

use berth_types::spec::{Seccomp, Syscall};
use berth_types::{Error, Result};

use super::Program;
use super::abi::{self, Abi, X32_BIT};
use super::action::Action;
use super::argument::Comparison;
use super::assembler::{Assembler, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, Label};

/// `BPF_MAXINSNS`
const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

// linux/seccomp.h
const TSYNC: u32 = 1;
const LOG: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;
pub(super) const NEW_LISTENER: u32 = 1 << 3;
const TSYNC_ESRCH: u32 = 1 << 4;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// All that the profile says about one system call.
#[derive(Debug, Default)]
struct Rules {
    /// In order, the first that matches decides.
    conditional: Vec<(Vec<Comparison>, Action)>,
    /// Where none matches; the profile's default if there is none.
    general: Option<Action>,
}

/// Compiles `profile` for this machine. Fails with InvalidArgument for architectures, actions,
/// comparisons and flags that don't exist, and for a profile too great for the kernel.
pub fn compile(profile: &Seccomp) -> Result<Program> {
    let default = Action::parse(&profile.default_action, profile.default_errno_ret)?;
    let (names, rules) = collect(&profile.syscalls)?;
    let mut compiler =
        Compiler { rules: &rules, names: &names, default, program: Assembler::default() };
    compiler.filter(&abis(&profile.architectures)?);
    let instructions = compiler.program.finish();
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid_argument(format!(
            "the seccomp profile needs {} instructions and the kernel takes {MAX_INSTRUCTIONS}: \
             use fewer argument rules or architectures",
            instructions.len()
        )));
    }
    Ok(Program { instructions, flags: flags(profile)? })
}

/// The rules by system call: an index for each name. A name's second and later rules join the
/// first's.
fn collect(syscalls: &[Syscall]) -> Result<(HashMap<&str, usize>, Vec<Rules>)> {
    let mut names = HashMap::new();
    let mut all: Vec<Rules> = Vec::new();
    for syscall in syscalls {
        let action = Action::parse(&syscall.action, syscall.errno_ret)?;
        let comparisons: Vec<_> =
            syscall.args.iter().map(Comparison::parse).collect::<Result<_>>()?;
        for name in &syscall.names {
            let index = *names.entry(name.as_str()).or_insert_with(|| {
                all.push(Rules::default());
                all.len() - 1
            });
            all[index].add(&comparisons, action);
        }
    }
    Ok((names, all))
}

impl Rules {
    fn add(&mut self, comparisons: &[Comparison], action: Action) {
        let repeated = comparisons
            .iter()
            .enumerate()
            .any(|(at, one)| comparisons[..at].iter().any(|other| other.index == one.index));
        match (comparisons, repeated) {
            ([], _) => {
                self.general.get_or_insert(action);
            }
            (_, false) => self.conditional.push((comparisons.to_vec(), action)),
            (_, true) => {
                self.conditional.extend(comparisons.iter().map(|one| (vec![*one], action)));
            }
        }
    }
}

/// The native one first, then what else the profile lists and this machine has.
fn abis(names: &[String]) -> Result<Vec<Abi>> {
    let mut all = vec![Abi::NATIVE];
    for name in names {
        match Abi::from_name(name) {
            Some(abi) if !all.contains(&abi) => all.push(abi),
            Some(_) => {}
            None if abi::KNOWN
                .iter()
                .any(|known| name.strip_prefix("SCMP_ARCH_") == Some(known)) => {}
            None => {
                let message = format!("seccomp architecture {name:?} is unknown");
                return Err(Error::invalid_argument(message));
            }
        }
    }
    Ok(all)
}

fn flags(profile: &Seccomp) -> Result<u32> {
    let Some(names) = &profile.flags else { return Ok(SPEC_ALLOW | listener(profile)?) };
    let mut flags = listener(profile)?;
    for name in names {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" if flags & NEW_LISTENER != 0 => TSYNC | TSYNC_ESRCH,
            "SECCOMP_FILTER_FLAG_TSYNC" => TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => WAIT_KILLABLE_RECV,
            _ => {
                return Err(Error::invalid_argument(format!(
                    "seccomp flag {name:?} is unknown: use SECCOMP_FILTER_FLAG_LOG, SPEC_ALLOW, \
                     TSYNC or WAIT_KILLABLE_RECV"
                )));
            }
        };
    }
    Ok(flags)
}

/// A filter that notifies comes with a listener.
fn listener(profile: &Seccomp) -> Result<u32> {
    let mut notifies = Action::parse(&profile.default_action, None)?.notifies();
    for syscall in &profile.syscalls {
        notifies |= Action::parse(&syscall.action, syscall.errno_ret)?.notifies();
    }
    Ok(if notifies { NEW_LISTENER } else { 0 })
}

struct Compiler<'a> {
    names: &'a HashMap<&'a str, usize>,
    rules: &'a [Rules],
    default: Action,
    program: Assembler,
}

/// From this number on, what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u32,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Answer(Action),
    At(Label),
}

impl Compiler<'_> {
    /// Writes the whole filter: which architecture, which number, which arguments.
    fn filter(&mut self, abis: &[Abi]) {
        let foreign = self.program.end(Action::KILL_PROCESS.0);
        let x32 = self.x32(abis).unwrap_or(foreign);
        let mut no = foreign;
        for abi in abis.iter().rev().filter(|abi| !is_x32(**abi)) {
            let mut numbers = self.numbers(*abi);
            if *abi == Abi::NATIVE && cfg!(target_arch = "x86_64") {
                numbers = self.program.branch(JUMP_GREATER_OR_EQUAL, X32_BIT, x32, numbers);
            }
            let numbers = self.program.load(NUMBER, numbers);
            no = self.program.branch(JUMP_EQUAL, abi.token(), numbers, no);
        }
        self.program.load(ARCH, no);
    }

    fn x32(&mut self, abis: &[Abi]) -> Option<Label> {
        abis.iter().find(|abi| is_x32(**abi)).map(|abi| self.numbers(*abi))
    }

    /// Writes the decision over the system calls of one architecture.
    fn numbers(&mut self, abi: Abi) -> Label {
        let ranges = self.ranges(abi);
        self.search(&ranges)
    }

    /// Covers all numbers, in order, with as few ranges as there can be.
    fn ranges(&mut self, abi: Abi) -> Vec<Range> {
        let mut ranges = Vec::new();
        let mut add = |from, then| match ranges.last() {
            Some(Range { then: last, .. }) if *last == then => {}
            _ => ranges.push(Range { from, then }),
        };
        let default = Then::Answer(self.default);
        let mut next = 0;
        for (number, index) in abi.select(self.names) {
            if number > next {
                add(next, default);
            }
            let then = self.call(&self.rules[index], abi);
            add(number, then);
            next = number + 1;
        }
        let newer =
            if self.default.refuses() && next > 0 { Action::NO_SUCH_CALL } else { self.default };
        add(next, Then::Answer(newer));
        ranges
    }

    /// Writes what a system call's arguments decide, if they do.
    fn call(&mut self, rules: &Rules, abi: Abi) -> Then {
        let general = rules.general.unwrap_or(self.default);
        if rules.conditional.is_empty() {
            return Then::Answer(general);
        }
        let mut otherwise = self.program.end(general.0);
        for (comparisons, action) in rules.conditional.iter().rev() {
            let mut next = self.program.end(action.0);
            for comparison in comparisons.iter().rev() {
                let comparison = match abi.has_64_bit_arguments() {
                    true => *comparison,
                    false => comparison.narrowed(),
                };
                next = comparison.assemble(&mut self.program, next, otherwise);
            }
            otherwise = next;
        }
        Then::At(otherwise)
    }

    /// Writes a binary search for the range that a number is in.
    fn search(&mut self, ranges: &[Range]) -> Label {
        match ranges {
            [] => self.program.end(self.default.0),
            [Range { then: Then::Answer(action), .. }] => self.program.end(action.0),
            [Range { then: Then::At(label), .. }] => *label,
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let from = above[0].from;
                let above = self.search(above);
                let below = self.search(below);
                self.program.branch(JUMP_GREATER_OR_EQUAL, from, above, below)
            }
        }
    }
}

fn is_x32(abi: Abi) -> bool {
    cfg!(target_arch = "x86_64") && Abi::from_name("SCMP_ARCH_X32") == Some(abi)
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::seccomp::interpreter::{Call, run};

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const KILL_PROCESS: u32 = 0x8000_0000;

    fn program(json: &str) -> Program {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    fn answer(program: &Program, abi: Abi, number: u32, args: &[u64]) -> u32 {
        let mut call = Call { number, arch: abi.token(), args: [0; 6] };
        call.args[..args.len()].copy_from_slice(args);
        run(&program.instructions, &call).0
    }

    #[test]
    fn architectures_are_kept_apart() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86","SCMP_ARCH_MIPS"],
                "syscalls":[{"names":["read","nosuchcall"],"action":"SCMP_ACT_ALLOW"},
                            {"names":["write","getpid"],"action":"SCMP_ACT_ERRNO"}]}"#,
        );
        assert_eq!(answer(&program, Abi::X8664, 0, &[]), ALLOW);
        assert_eq!(answer(&program, Abi::X8664, 1, &[]), EPERM);
        assert_eq!(answer(&program, Abi::X86, 3, &[]), ALLOW);
        assert_eq!(answer(&program, Abi::X86, 0, &[]), EPERM);
        assert_eq!(answer(&program, Abi::X8664, X32_BIT, &[]), KILL_PROCESS, "x32 is not listed");
        let foreign = Call { number: 0, arch: 0x4000_0028, args: [0; 6] };
        assert_eq!(run(&program.instructions, &foreign).0, KILL_PROCESS);
    }

    #[test]
    fn x32_has_its_own_numbers() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X32"],
                "syscalls":[{"names":["execve","read"],"action":"SCMP_ACT_ALLOW"}]}"#,
        );
        assert_eq!(answer(&program, Abi::X32, X32_BIT | 520, &[]), ALLOW);
        assert_eq!(answer(&program, Abi::X32, X32_BIT | 59, &[]), EPERM);
        assert_eq!(answer(&program, Abi::X8664, 59, &[]), ALLOW);
    }

    #[test]
    fn newer_calls_look_absent_when_others_are_refused() {
        let refuse = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO",
                "syscalls":[{"names":["read","statx"],"action":"SCMP_ACT_ALLOW"}]}"#,
        );
        assert_eq!(answer(&refuse, Abi::X8664, 331, &[]), EPERM);
        assert_eq!(answer(&refuse, Abi::X8664, 333, &[]), ENOSYS);
        let log = program(r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[]}"#);
        assert_eq!(answer(&log, Abi::X8664, 9999, &[]), 0x7ffc_0000);
    }

    /// Every operator on numbers around the value, in both halves of the word.
    #[test]
    fn comparisons_have_64_bits() {
        let values = [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x2_0000_0001, u64::MAX - 1, u64::MAX];
        type Truth = fn(u64, u64) -> bool;
        let operators: [(&str, Truth); 6] = [
            ("EQ", |a, b| a == b),
            ("NE", |a, b| a != b),
            ("LT", |a, b| a < b),
            ("LE", |a, b| a <= b),
            ("GT", |a, b| a > b),
            ("GE", |a, b| a >= b),
        ];
        for (name, truth) in operators {
            for value in values {
                let program = program(&format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],
                        "action":"SCMP_ACT_ALLOW",
                        "args":[{{"index":5,"value":{value},"op":"SCMP_CMP_{name}"}}]}}]}}"#
                ));
                for arg in values {
                    let expected = if truth(arg, value) { ALLOW } else { EPERM };
                    let got = answer(&program, Abi::X8664, 0, &[0, 0, 0, 0, 0, arg]);
                    assert_eq!(got, expected, "{arg:#x} {name} {value:#x}");
                }
            }
        }
    }

    #[test]
    fn masks() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],
                "syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
                    {"index":0,"value":17179869187,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        );
        for (arg, wide, narrow) in [
            (1, ALLOW, ALLOW),
            (0x1_0000_0005, ALLOW, ALLOW),
            (3, EPERM, EPERM),
            (0x4_0000_0001, EPERM, ALLOW),
        ] {
            assert_eq!(answer(&program, Abi::X8664, 56, &[arg]), wide, "{arg:#x}");
            // The kernel shows a 32-bit caller's arguments with the upper half zero.
            assert_eq!(answer(&program, Abi::X86, 120, &[arg as u32 as u64]), narrow, "{arg:#x}");
        }
    }

    #[test]
    fn rules_of_one_call_are_tried_in_order_before_the_general_one() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[
                {"names":["socket"],"action":"SCMP_ACT_ALLOW"},
                {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":97,
                 "args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"},
                         {"index":1,"value":5,"op":"SCMP_CMP_EQ"}]},
                {"names":["socket"],"action":"SCMP_ACT_ERRNO",
                 "args":[{"index":0,"value":38,"op":"SCMP_CMP_GE"}]}]}"#,
        );
        assert_eq!(answer(&program, Abi::X8664, 41, &[2, 5]), ALLOW);
        assert_eq!(answer(&program, Abi::X8664, 41, &[38, 5]), 0x0005_0061);
        assert_eq!(answer(&program, Abi::X8664, 41, &[38, 4]), EPERM);
    }

    #[test]
    fn comparisons_of_one_argument_are_alternatives() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["personality"],"action":"SCMP_ACT_ALLOW",
                 "args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
                         {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        assert_eq!(answer(&program, Abi::X8664, 135, &[0]), ALLOW);
        assert_eq!(answer(&program, Abi::X8664, 135, &[8]), ALLOW);
        assert_eq!(answer(&program, Abi::X8664, 135, &[4]), EPERM);
    }

    #[test]
    fn far_jumps() {
        // Each rule is some ten instructions: the search tree is far from its answers.
        let rules: Vec<_> = (0..150u64)
            .map(|value| {
                format!(
                    r#"{{"names":["read","write","openat"],"action":"SCMP_ACT_ERRNO",
                        "errnoRet":{},"args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#,
                    value + 1
                )
            })
            .collect();
        let program = program(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#,
            rules.join(",")
        ));
        assert!(program.len() > 1500);
        for number in [0, 1, 257] {
            for value in [0, 1, 77, 149] {
                let expected = 0x0005_0000 | (value as u32 + 1);
                assert_eq!(answer(&program, Abi::X8664, number, &[value]), expected);
            }
            assert_eq!(answer(&program, Abi::X8664, number, &[150]), ALLOW);
        }
        assert_eq!(answer(&program, Abi::X8664, 2, &[1]), ALLOW);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            r#"{"defaultAction":"SCMP_ACT_PERHAPS"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_FAST"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
                "action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
                "action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"SCMP_CMP_IS"}]}]}"#,
        ] {
            assert!(compile(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_follow_the_profile() {
        let flags = |json: &str| program(json).flags;
        assert_eq!(flags(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), SPEC_ALLOW);
        assert_eq!(flags(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#), 0);
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert_eq!(flags(notify), TSYNC | TSYNC_ESRCH | NEW_LISTENER);
    }
}
