//! hooks
crate::cases![];
