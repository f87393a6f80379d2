//! terminal
crate::cases![];
