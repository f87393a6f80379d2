//! exec
crate::cases![];
