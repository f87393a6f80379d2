//! The fields of a call, read as far as needed to find the authority (RFC 7541, 5 and 6).

/// The field whose value is put right: its name, and its number in the static table.
const AUTHORITY: &[u8] = b":authority";
const AUTHORITY_NUMBER: usize = 1;
/// Flags of the frame that fields begin in.
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// How long its priority is.
const PRIORITY_LENGTH: usize = 5;
/// Texts whose characters are packed have this bit before their length.
const PACKED: u8 = 0x80;

/// Where in the fields of a call we are.
#[derive(Default)]
pub(super) struct Fields(At);

#[derive(Clone, Copy, Default)]
enum At {
    /// Before this many bytes that are no fields.
    Before(usize),
    /// At the beginning of a field.
    #[default]
    Field,
    /// In a number that takes several bytes: what it is so far, and how far its next bits are to
    /// be moved.
    Number { so_far: usize, shift: u32, then: Then },
    /// Before a name.
    NameLength,
    /// In a name: how much is left of it, and whether it may be the authority's.
    Name { left: usize, may_be: bool },
    /// Before a value.
    ValueLength { is_authority: bool },
    /// In a value: how much is left of it, and whether it is to be put right.
    Value { left: usize, is_authority: bool },
    /// In what we can't read.
    Lost,
}

/// What comes after a number.
#[derive(Clone, Copy)]
enum Then {
    Field,
    Name,
    ValueLength,
    Value { is_authority: bool },
}

impl Fields {
    /// A frame begins with these flags.
    pub(super) fn begin(&mut self, flags: u8) {
        self.0 = match flags {
            // Nobody pads, and padding would be read as fields.
            flags if flags & PADDED != 0 => At::Lost,
            flags if flags & PRIORITY != 0 => At::Before(PRIORITY_LENGTH),
            _ => At::Field,
        };
    }

    /// Reads on, and puts right what is the authority's value.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if let At::Value { is_authority: true, .. } = self.0
                && *byte == b'%'
            {
                *byte = b'-';
            }
            self.0 = self.0.after(*byte);
        }
    }
}

impl At {
    fn after(self, byte: u8) -> Self {
        match self {
            At::Before(1) => At::Field,
            At::Before(left) => At::Before(left - 1),
            At::Field => field(byte),
            At::Number { shift, .. } if shift > 21 => At::Lost,
            At::Number { so_far, shift, then } => {
                let number = so_far + (usize::from(byte & 0x7f) << shift);
                match byte & 0x80 {
                    0 => then.with(number),
                    _ => At::Number { so_far: number, shift: shift + 7, then },
                }
            }
            At::NameLength if byte & PACKED != 0 => {
                number(byte, 7, Then::Name, |left| named(left, false))
            }
            At::NameLength => {
                number(byte, 7, Then::Name, |left| named(left, left == AUTHORITY.len()))
            }
            At::Name { left, may_be } => {
                let at = AUTHORITY.len().checked_sub(left);
                let may_be = may_be && at.is_some_and(|at| AUTHORITY[at] == byte);
                named(left - 1, may_be)
            }
            At::ValueLength { is_authority } => {
                let is_authority = is_authority && byte & PACKED == 0;
                number(byte, 7, Then::Value { is_authority }, |left| valued(left, is_authority))
            }
            At::Value { left, is_authority } => valued(left - 1, is_authority),
            At::Lost => At::Lost,
        }
    }
}

impl Then {
    fn with(self, number: usize) -> At {
        match self {
            Then::Field => At::Field,
            // One that is this long is another one.
            Then::Name => named(number, false),
            Then::ValueLength => At::ValueLength { is_authority: false },
            Then::Value { is_authority } => valued(number, is_authority),
        }
    }
}

/// After the first byte of a field, which tells its kind.
fn field(byte: u8) -> At {
    let literal = |name: usize| match name {
        0 => At::NameLength,
        name => At::ValueLength { is_authority: name == AUTHORITY_NUMBER },
    };
    match byte {
        0x80.. => number(byte, 7, Then::Field, |_| At::Field),
        0x40.. => number(byte, 6, Then::ValueLength, literal),
        // The size of the table.
        0x20.. => number(byte, 5, Then::Field, |_| At::Field),
        _ => number(byte, 4, Then::ValueLength, literal),
    }
}

/// After the first byte of a number, whose lowest `bits` are its own.
fn number(byte: u8, bits: u32, then: Then, whole: impl FnOnce(usize) -> At) -> At {
    let most = (1 << bits) - 1;
    match usize::from(byte) & most {
        number if number < most => whole(number),
        so_far => At::Number { so_far, shift: 0, then },
    }
}

fn named(left: usize, may_be: bool) -> At {
    match left {
        0 => At::ValueLength { is_authority: may_be },
        left => At::Name { left, may_be },
    }
}

fn valued(left: usize, is_authority: bool) -> At {
    match left {
        0 => At::Field,
        left => At::Value { left, is_authority },
    }
}
