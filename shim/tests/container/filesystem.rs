//! filesystem
crate::cases![];
