//! Runs filters as the kernel does, so that tests can ask for answers to any call.

use super::assembler::{
    AND, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, RETURN,
};

/// A system call: `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            other => panic!("load from {other}"),
        }
    }
}

/// The answer, and how many instructions it took.
pub(super) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut word, mut at, mut steps) = (0, 0usize, 0);
    loop {
        let Instruction { code, if_true, if_false, k } = program[at];
        steps += 1;
        at += 1;
        let branch = |taken: bool| usize::from(if taken { if_true } else { if_false });
        match code {
            LOAD => word = call.word(k),
            AND => word &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += branch(word == k),
            JUMP_GREATER => at += branch(word > k),
            JUMP_GREATER_OR_EQUAL => at += branch(word >= k),
            RETURN => return (k, steps),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
