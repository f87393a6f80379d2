//! Classic BPF, written from its end: a jump goes forward only, so that its target is known when
//! the jump is written, and so is the distance.

/// `struct sock_filter`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) k: u32,
}

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// The farthest that a conditional jump goes.
const NEAR: usize = u8::MAX as usize;

/// An instruction that is already written, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// Where each answer was written last.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The program in order.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// The end of the filter with `answer`, one in reach if there is one.
    pub(super) fn end(&mut self, answer: u32) -> Label {
        let known = self.returns.iter_mut().find(|(value, _)| *value == answer);
        match known {
            // Leave room for the jumps of the two or three instructions that use it.
            Some((_, label)) if self.reversed.len() - label.0 < NEAR - 8 => *label,
            Some(_) | None => {
                let label = self.push(RETURN, 0, 0, answer);
                self.returns.retain(|(value, _)| *value != answer);
                self.returns.push((answer, label));
                label
            }
        }
    }

    /// Loads the word at `offset` of the call's description, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.adjoin(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Masks the loaded word, then goes on at `next`.
    pub(super) fn mask(&mut self, mask: u32, next: Label) -> Label {
        self.adjoin(next);
        self.push(AND, 0, 0, mask)
    }

    /// Compares the loaded word with `k`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let no = self.near(no);
        let yes = self.near(yes);
        // The jump for `yes` may have moved `no` by one, which `near` left room for.
        let (if_true, if_false) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(code, if_true, if_false, k)
    }

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, if_true, if_false, k });
        Label(self.reversed.len())
    }

    /// How many instructions are skipped by a jump written now.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    /// A label within reach of a conditional jump that leads to `label`.
    fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            ..NEAR => label,
            far => self.push(JUMP, 0, 0, far as u32),
        }
    }

    /// Makes `next` the instruction that follows the one written now.
    fn adjoin(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_jumps_count_what_they_skip() {
        let mut program = Assembler::default();
        let no = program.end(0);
        let yes = program.end(1);
        program.branch(JUMP_EQUAL, 7, yes, no);
        let first = program.finish()[0];
        assert_eq!(first, Instruction { code: JUMP_EQUAL, if_true: 0, if_false: 1, k: 7 });
    }

    #[test]
    fn answers_in_reach_are_shared() {
        let mut program = Assembler::default();
        assert_eq!(program.end(5), program.end(5));
        assert_eq!(program.finish().len(), 1);
    }
}
