//! The system call filter: `linux.seccomp`. Names stay text: a profile is written for many
//! kernels, and what is unknown here is judged where the filter is compiled.

use serde::{Deserialize, Serialize};

use super::nullable;

/// A filter: the default action and the rules that depart from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // The fields are the specification's.
pub struct Seccomp {
    /// `SCMP_ACT_…`.
    pub default_action: String,
    /// The error number of a default action that returns one; absent: EPERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; empty: this machine's own.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`; absent is not the same as none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// The socket that receives the descriptor for `SCMP_ACT_NOTIFY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Syscall>,
}

/// An action for system calls whose arguments match all of `args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // The fields are the specification's.
pub struct Syscall {
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    pub action: String,
    /// For actions that return an error number or a value to a tracer; absent: EPERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
}

/// A comparison of one argument, as an unsigned 64-bit number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // The fields are the specification's.
pub struct Argument {
    /// 0 to 5.
    pub index: u32,
    /// What it is compared with; for `SCMP_CMP_MASKED_EQ` the mask.
    pub value: u64,
    /// For `SCMP_CMP_MASKED_EQ`: what the masked argument equals.
    #[serde(skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
