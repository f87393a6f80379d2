//! Device access on v2: a BPF program that is asked for every access
//! (`Documentation/admin-guide/cgroup-v2.rst`, "Device controller"; `struct bpf_cgroup_dev_ctx`).
//!
//! The program reads the rules from the last to the first and keeps what of the access is
//! undecided. A rule that matches the device settles its part: allowed, it is taken off, and
//! nothing left means yes; denied, if any of it is left, means no. What no rule settles is denied.

use std::os::fd::BorrowedFd;

use berth_types::spec::DeviceRule;
use berth_types::{Error, Result};

use crate::bpf::{self, Instruction};
use crate::cgroup::device::{self, Access, Kind, Rule};

// Registers.
const RESULT: u8 = 0;
/// The context on entry.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Instructions (class, operation and source of instruction-set.rst).
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_IF_NOT_EQUAL: u8 = 0x55;
const JUMP_IF_ANY: u8 = 0x45;
const EXIT: u8 = 0x95;

// Offsets in the context. The kind is in the low, the access in the high half of the first word.
const ACCESS_TYPE: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;

/// The kernel's limit on instructions where the loader has no CAP_BPF.
const MAX_INSTRUCTIONS: usize = 4096;

/// Puts `rules` in force for the cgroup, in place of those that were. Between the two both are in
/// force, never none.
pub(super) fn restrict(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(&device::effective(rules)?)?;
    let program = bpf::load_device_filter(&program)?;
    let before = bpf::device_filters(cgroup)?;
    bpf::attach_device_filter(cgroup, &program)?;
    before.iter().try_for_each(|program| bpf::detach_device_filter(cgroup, program))
}

fn compile(rules: &[Rule]) -> Result<Vec<Instruction>> {
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, ACCESS_TYPE, 0),
        op(MOVE_REGISTER, UNDECIDED, KIND, 0, 0),
        op(AND, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT, UNDECIDED, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, MAJOR_AT, 0),
        op(LOAD_WORD, MINOR, CONTEXT, MINOR_AT, 0),
    ];
    // What lies before a rule about everything can't decide any more.
    let first = rules.iter().rposition(Rule::is_total).unwrap_or(0);
    for rule in rules[first..].iter().rev() {
        program.append(&mut one(rule));
    }
    program.extend(answer(false));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid_argument(format!(
            "the device list has {} rules, more than a filter can hold: use wildcards",
            rules.len()
        )));
    }
    Ok(program)
}

/// Device numbers are compared as 32-bit patterns; registers hold loaded words without a sign, so
/// numbers from 2^31 on would need a wide constant. The kernel's own are below 2^20.
fn one(rule: &Rule) -> Vec<Instruction> {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let conditions = [
        rule.kind.map(|kind| (KIND, kind_number(kind))),
        rule.major.map(|major| (MAJOR, number(major))),
        rule.minor.map(|minor| (MINOR, number(minor))),
    ];
    let body = match rule.allow {
        true => allow(rule.access),
        false => deny(rule.access),
    };
    let mut all = body;
    for (register, value) in conditions.into_iter().flatten().rev() {
        let skip = all.len() as i16;
        all.insert(0, op(JUMP_IF_NOT_EQUAL, register, 0, skip, value));
    }
    all
}

/// Takes `access` off what is undecided; nothing left is a yes.
fn allow(access: Access) -> Vec<Instruction> {
    let mut all = vec![
        op(AND, UNDECIDED, 0, 0, i32::from(!kernel_bits(access) & 7)),
        op(JUMP_IF_NOT_EQUAL, UNDECIDED, 0, 2, 0),
    ];
    all.extend(answer(true));
    all
}

/// A no if any of `access` is undecided.
fn deny(access: Access) -> Vec<Instruction> {
    let mut all = vec![
        op(JUMP_IF_ANY, UNDECIDED, 0, 1, i32::from(kernel_bits(access))),
        // Jump over the answer.
        op(0x05, 0, 0, 2, 0),
    ];
    all.extend(answer(false));
    all
}

fn answer(yes: bool) -> [Instruction; 2] {
    [op(MOVE, RESULT, 0, 0, i32::from(yes)), op(EXIT, 0, 0, 0, 0)]
}

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// `BPF_DEVCG_DEV_…`
fn kind_number(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

/// `BPF_DEVCG_ACC_…`
fn kernel_bits(access: Access) -> u8 {
    let pairs = [(Access::MKNOD, 1), (Access::READ, 2), (Access::WRITE, 4)];
    pairs.iter().filter(|(ours, _)| access.0 & ours != 0).map(|(_, bit)| bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], kind: Kind, bits: u8, major: u32, minor: u32) -> bool {
        let word = u64::from(kernel_bits(Access(bits))) << 16 | kind_number(kind) as u64;
        let mut registers = [0u64; 6];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let jump = |taken: bool| at + 1 + if taken { offset as usize } else { 0 };
            let value = immediate as u64;
            at = match code {
                LOAD_WORD => {
                    registers[to] = [word, major.into(), minor.into()][offset as usize / 4];
                    at + 1
                }
                AND => {
                    registers[to] &= value & 0xffff_ffff;
                    at + 1
                }
                SHIFT_RIGHT => {
                    registers[to] >>= value;
                    at + 1
                }
                MOVE => {
                    registers[to] = value;
                    at + 1
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    at + 1
                }
                JUMP_IF_NOT_EQUAL => jump(registers[to] != value),
                JUMP_IF_ANY => jump(registers[to] & value != 0),
                0x05 => jump(true),
                EXIT => return registers[RESULT as usize] == 1,
                other => panic!("unknown instruction {other:#x}"),
            };
        }
    }

    fn program(json: &str) -> Vec<Instruction> {
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        compile(&device::effective(&rules).unwrap()).unwrap()
    }

    #[test]
    fn nothing_but_the_usual_devices() {
        let program = program("[]");
        assert!(run(&program, Kind::Char, 3, 1, 3), "null");
        assert!(run(&program, Kind::Char, 7, 136, 4), "a terminal");
        assert!(run(&program, Kind::Block, 4, 8, 0), "a disk's node may be made");
        assert!(!run(&program, Kind::Block, 1, 8, 0), "but not read");
        assert!(!run(&program, Kind::Char, 5, 10, 200), "nor half of an access");
    }

    #[test]
    fn the_last_rule_decides_each_part() {
        let program = program(
            r#"[{"allow":false},{"allow":true,"type":"b","major":8,"access":"rw"},
               {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        );
        assert!(run(&program, Kind::Block, 3, 8, 0));
        assert!(run(&program, Kind::Block, 1, 8, 1));
        assert!(!run(&program, Kind::Block, 2, 8, 1));
        assert!(!run(&program, Kind::Block, 3, 8, 1));
        assert!(!run(&program, Kind::Char, 1, 8, 0));
    }

    #[test]
    fn everything_but_one() {
        let program = program(
            r#"[{"allow":false,"type":"c","major":99},{"allow":true},
               {"allow":false,"type":"c","major":10,"minor":200}]"#,
        );
        assert!(run(&program, Kind::Char, 3, 99, 1), "before a rule about everything");
        assert!(!run(&program, Kind::Char, 3, 10, 200));
        assert!(run(&program, Kind::Char, 7, 10, 201));
    }

    #[test]
    fn the_kernel_accepts_it() {
        bpf::load_device_filter(&program(r#"[{"allow":true,"type":"b","minor":3}]"#)).unwrap();
        let refused = bpf::load_device_filter(&[op(EXIT, 0, 0, 0, 0)]).unwrap_err();
        assert!(refused.message().contains("R0"), "{refused}");
    }
}
