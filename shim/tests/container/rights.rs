//! rights
crate::cases![];
