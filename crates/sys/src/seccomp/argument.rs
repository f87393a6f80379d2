//! Comparisons of arguments: 64-bit numbers, with a machine of 32-bit words.

use berth_types::spec::Argument;
use berth_types::{Error, Result};

use super::assembler::{Assembler, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, Label};

/// Where `args` starts in `struct seccomp_data`.
const FIRST_ARGUMENT: u32 = 16;

/// A checked comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) index: u32,
    operator: Operator,
    value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    MaskedEqual { mask: u64 },
}

impl Comparison {
    pub(super) fn parse(argument: &Argument) -> Result<Self> {
        if argument.index > 5 {
            return Err(Error::invalid_argument(format!(
                "seccomp argument {}: a system call has the arguments 0 to 5",
                argument.index
            )));
        }
        let mut value = argument.value;
        let operator = match argument.op.as_str() {
            "SCMP_CMP_EQ" => Operator::Equal,
            "SCMP_CMP_NE" => Operator::NotEqual,
            "SCMP_CMP_LT" => Operator::Less,
            "SCMP_CMP_LE" => Operator::LessOrEqual,
            "SCMP_CMP_GT" => Operator::Greater,
            "SCMP_CMP_GE" => Operator::GreaterOrEqual,
            "SCMP_CMP_MASKED_EQ" => {
                value = argument.value_two;
                Operator::MaskedEqual { mask: argument.value }
            }
            other => {
                return Err(Error::invalid_argument(format!(
                    "seccomp comparison {other:?} is unknown: use SCMP_CMP_EQ, NE, LT, LE, GT, GE \
                     or MASKED_EQ"
                )));
            }
        };
        Ok(Self { index: argument.index, operator, value })
    }

    /// The same for an architecture whose arguments have 32 bits.
    pub(super) fn narrowed(self) -> Self {
        let low = |value: u64| value & u64::from(u32::MAX);
        let operator = match self.operator {
            Operator::MaskedEqual { mask } => Operator::MaskedEqual { mask: low(mask) },
            other => other,
        };
        Self { operator, value: low(self.value), ..self }
    }

    /// Writes the comparison.
    pub(super) fn assemble(self, program: &mut Assembler, yes: Label, no: Label) -> Label {
        use Operator as O;
        match self.operator {
            O::Equal => self.equal(program, u64::MAX, yes, no),
            O::NotEqual => self.equal(program, u64::MAX, no, yes),
            O::MaskedEqual { mask } => self.equal(program, mask, yes, no),
            O::Greater => self.order(program, JUMP_GREATER, yes, no),
            O::GreaterOrEqual => self.order(program, JUMP_GREATER_OR_EQUAL, yes, no),
            O::Less => self.order(program, JUMP_GREATER_OR_EQUAL, no, yes),
            O::LessOrEqual => self.order(program, JUMP_GREATER, no, yes),
        }
    }

    fn equal(self, program: &mut Assembler, mask: u64, yes: Label, no: Label) -> Label {
        let (low, high) = self.halves();
        let lower = program.branch(JUMP_EQUAL, low, yes, no);
        let lower = self.masked(program, mask as u32, lower);
        let lower = program.load(self.offset(), lower);
        if mask >> 32 == 0 && high == 0 {
            return lower;
        }
        let upper = program.branch(JUMP_EQUAL, high, lower, no);
        let upper = self.masked(program, (mask >> 32) as u32, upper);
        program.load(self.offset() + 4, upper)
    }

    fn masked(self, program: &mut Assembler, mask: u32, next: Label) -> Label {
        if mask == u32::MAX { next } else { program.mask(mask, next) }
    }

    /// `code` compares the lower halves where the upper ones are equal.
    fn order(self, program: &mut Assembler, code: u16, yes: Label, no: Label) -> Label {
        let (low, high) = self.halves();
        let lower = program.branch(code, low, yes, no);
        let lower = program.load(self.offset(), lower);
        let not_greater = program.branch(JUMP_EQUAL, high, lower, no);
        let upper = program.branch(JUMP_GREATER, high, yes, not_greater);
        program.load(self.offset() + 4, upper)
    }

    fn halves(self) -> (u32, u32) {
        (self.value as u32, (self.value >> 32) as u32)
    }

    /// Of the lower half: the machines that berth knows are little-endian.
    fn offset(self) -> u32 {
        FIRST_ARGUMENT + 8 * self.index
    }
}
