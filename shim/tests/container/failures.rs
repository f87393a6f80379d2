//! failures
crate::cases![];
