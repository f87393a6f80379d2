//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity` and `linux.memoryPolicy`.

use berth_sys::scheduling;
use berth_types::spec::{self, ExecCpuAffinity, IoPriority, MemoryPolicy};
use berth_types::{Error, Result, ResultExt};

use super::lists;

/// How a process is scheduled.
#[derive(Debug, Default)]
pub(super) struct Scheduling {
    scheduler: Option<scheduling::Scheduler>,
    /// Class and level.
    io_priority: Option<(u8, u8)>,
    /// The processors of an exec, before and after it is in its cgroup.
    affinity: [Option<Vec<usize>>; 2],
}

impl Scheduling {
    /// Checks what `process` says.
    pub(super) fn check(process: &spec::Process) -> Result<Self> {
        let affinity = match &process.exec_cpu_affinity {
            Some(ExecCpuAffinity { initial, last }) => [
                processors("process.execCPUAffinity.initial", initial)?,
                processors("process.execCPUAffinity.final", last)?,
            ],
            None => [None, None],
        };
        Ok(Self {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            affinity,
        })
    }

    /// Takes an exec to the processors that it is to start on.
    pub(super) fn enter_initial(&self) -> Result<()> {
        enter(self.affinity[0].as_deref())
    }

    /// Takes an exec to the processors that it is to run on.
    pub(super) fn enter_last(&self) -> Result<()> {
        enter(self.affinity[1].as_deref())
    }

    /// Makes the rest the caller's.
    pub(super) fn apply(&self) -> Result<()> {
        if let Some((class, level)) = self.io_priority {
            scheduling::set_io_priority(class, level).context(|| "set process.ioPriority")?;
        }
        match &self.scheduler {
            Some(scheduler) => scheduler.apply().map_err(|error| {
                Error::invalid_argument(format!("set process.scheduler: {error}"))
            }),
            None => Ok(()),
        }
    }
}

fn enter(processors: Option<&[usize]>) -> Result<()> {
    match processors {
        Some(processors) => scheduling::set_affinity(processors).map_err(|error| {
            Error::invalid_argument(format!("process.execCPUAffinity {processors:?}: {error}"))
        }),
        None => Ok(()),
    }
}

fn processors(field: &str, list: &Option<String>) -> Result<Option<Vec<usize>>> {
    let list = list.as_deref().filter(|list| !list.is_empty());
    list.map(|list| lists::parse(field, list)).transpose()
}

fn scheduler(scheduler: &spec::Scheduler) -> Result<scheduling::Scheduler> {
    let spec::Scheduler { policy, nice, priority, flags, runtime, deadline, period } = scheduler;
    let invalid = |what: String| Error::invalid_argument(format!("process.scheduler.{what}"));
    if !(-20..=19).contains(nice) {
        return Err(invalid(format!("nice {nice} is not between -20 and 19")));
    }
    let flag = |name: &String| {
        scheduling::flag(name).ok_or_else(|| invalid(format!("flags: {name:?} is no flag")))
    };
    Ok(scheduling::Scheduler {
        policy: scheduling::policy(policy)
            .ok_or_else(|| invalid(format!("policy {policy:?} is no policy")))?,
        flags: flags.iter().map(flag).try_fold(0, |all, flag| flag.map(|flag| all | flag))?,
        nice: *nice,
        priority: u32::try_from(*priority)
            .map_err(|_| invalid(format!("priority {priority} is negative")))?,
        runtime: *runtime,
        deadline: *deadline,
        period: *period,
    })
}

fn io_priority(priority: &IoPriority) -> Result<(u8, u8)> {
    let invalid = |what: String| Error::invalid_argument(format!("process.ioPriority.{what}"));
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(invalid(format!("class {other:?} is no class"))),
    };
    match priority.priority {
        level @ 0..=7 => Ok((class, level as u8)),
        other => Err(invalid(format!("priority {other} is not between 0 and 7"))),
    }
}

/// Where the memory of a container's first process comes from.
#[derive(Debug)]
pub(super) struct Nodes {
    mode: i32,
    nodes: Vec<usize>,
}

impl Nodes {
    /// Checks `linux.memoryPolicy`.
    pub(super) fn check(policy: &MemoryPolicy) -> Result<Self> {
        let MemoryPolicy { mode, nodes, flags } = policy;
        let invalid = |what: String| Error::invalid_argument(format!("linux.memoryPolicy.{what}"));
        let mut bits = scheduling::memory_policy(mode)
            .ok_or_else(|| invalid(format!("mode {mode:?} is no policy")))?;
        for name in flags {
            bits |= scheduling::memory_policy_flag(name)
                .ok_or_else(|| invalid(format!("flags: {name:?} is no flag")))?;
        }
        let nodes = match nodes.is_empty() {
            true => Vec::new(),
            false => lists::parse("linux.memoryPolicy.nodes", nodes)?,
        };
        if nodes.iter().any(|node| *node >= scheduling::NODES_MAX) {
            return Err(invalid("nodes: no machine has so many".into()));
        }
        Ok(Self { mode: bits, nodes })
    }

    /// Makes it the caller's.
    pub(super) fn apply(&self) -> Result<()> {
        scheduling::set_memory_policy(self.mode, &self.nodes)
            .map_err(|error| Error::invalid_argument(format!("set linux.memoryPolicy: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Scheduling> {
        let process = serde_json::from_str(json).unwrap();
        Scheduling::check(&process)
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        assert!(check(r#"{"scheduler":{"policy":"SCHED_RR","priority":5}}"#).is_ok());
        for (bad, field) in [
            (r#"{"scheduler":{"policy":"SCHED_X"}}"#, "process.scheduler.policy"),
            (r#"{"scheduler":{"policy":"SCHED_RR","nice":20}}"#, "process.scheduler.nice"),
            (r#"{"scheduler":{"policy":"SCHED_RR","flags":["X"]}}"#, "process.scheduler.flags"),
            (r#"{"scheduler":{"policy":"SCHED_RR","priority":-1}}"#, "priority"),
            (r#"{"ioPriority":{"class":"BEST"}}"#, "process.ioPriority.class"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#, "priority"),
            (r#"{"execCPUAffinity":{"final":"x"}}"#, "process.execCPUAffinity.final"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.message().contains(field), "{error}");
        }
    }
}
