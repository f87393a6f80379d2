//! attacks
crate::cases![];
