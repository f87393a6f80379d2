//! One tour through the subcommands of Debian's `ctr`, on berth and on Debian's containerd: the
//! outputs must be the same, but for what is of one run alone (times, pids, directories) and for
//! the words of an error, of which its kind counts.

mod steps;

use std::fs;

use berth_tests::{Engine, Finished, Flavor, Registry, wait_until};
use nix::sys::signal::Signal;
use regex::Regex;

/// What was typed and what came of it.
struct Tour {
    engine: Engine,
    /// Patterns of what differs from run to run, and what stands for it.
    rules: Vec<(Regex, &'static str)>,
    steps: Vec<(String, String)>,
}

impl Tour {
    fn start(flavor: Flavor) -> Self {
        let mut engine = Engine::prepare_flavor(flavor);
        if flavor == Flavor::Containerd {
            // Garbage goes when it is asked to, as with berth in the first minute.
            let scheduler = "[plugins.\"io.containerd.gc.v1.scheduler\"]";
            let never = "mutation_threshold = 0\ndeletion_threshold = 0\nstartup_delay = \"1h\"";
            engine.configure(&format!("version = 2\n{scheduler}\n{never}\n"));
        }
        engine.start_daemon();
        let state = engine.address().parent().unwrap().display().to_string();
        let own = |text: &str| regex::escape(text);
        let rule = |pattern: &str, with| (Regex::new(pattern).unwrap(), with);
        let rules = vec![
            rule(&own(engine.namespace()), "NAMESPACE"),
            rule(&own(&engine.root().display().to_string()), "ROOT"),
            rule(&own(&engine.path("").display().to_string()), "SCRATCH/"),
            rule(&own(&state), "STATE"),
            rule(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+( ?[+-][0-9:]+|Z)?( UTC)?", "TIME"),
            rule(r"([Ll]ess than a second|[0-9]+ seconds?|([Aa]bout )?a minute)( ago)?", "AGE"),
            rule(r"elapsed: *[0-9.]+ *m?s", "elapsed"),
            rule(r"[0-9]+(\.[0-9]+)?m?s(?-u:\b)", "DURATION"),
            rule(r"total: *[0-9.]+ *[KMGi]*B? *\([0-9.]+ *[KMGi]*B/s\)", "total"),
            // The directories of one snapshotter are not those of the other.
            rule(r"io\.containerd\.snapshotter\.v1\.overlayfs/snapshots/[0-9]+", "SNAPSHOT"),
            rule(r"snapshots/overlayfs/[0-9]+", "SNAPSHOT"),
            rule(r"extract-[0-9]+-[A-Za-z0-9_-]+", "extract"),
            rule(r"fifo/[0-9]+", "fifo/N"),
            // Progress is drawn as often as there is time.
            rule(r"(?m)^.*\|.*[+-]{4,}.*\n", ""),
            rule(r"(?m)^elapsed[ \t]+total[ \t]*\n", ""),
            rule(r" +", " "),
        ];
        Self { engine, rules, steps: Vec::new() }
    }

    /// Runs `ctr` with the words of `line` and keeps what it said.
    fn ctr(&mut self, line: &str) -> Finished {
        self.ctr_with_input(line, b"")
    }

    fn ctr_with_input(&mut self, line: &str, input: &[u8]) -> Finished {
        let words: Vec<&str> = line.split_whitespace().collect();
        let finished = self.engine.ctr_with_input(&words, input);
        let (stdout, stderr) = (self.plain(&finished.stdout), kind(&finished.stderr));
        let mut stdout = sorted(&stdout);
        if line == "content active" {
            // In no order.
            let mut lines: Vec<_> = stdout.lines().collect();
            lines.sort_unstable();
            stdout = lines.join("\n");
        }
        let said = format!("exit {}\n{stdout}--\n{stderr}", finished.code);
        self.steps.push((self.plain(line), said));
        finished
    }

    /// As [`Tour::ctr`], without keeping what was said.
    fn quietly(&self, line: &str) -> Finished {
        self.engine.ctr(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// `text` without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        self.rules.iter().fold(text.to_owned(), |text, (pattern, with)| {
            pattern.replace_all(&text, *with).into_owned()
        })
    }

    fn file(&self, name: &str) -> String {
        self.engine.path(name).display().to_string()
    }
}

/// The kind of an error, which `ctr` prints last.
fn kind(stderr: &str) -> String {
    let kinds = [
        "not found",
        "already exists",
        "invalid argument",
        "failed precondition",
        "unavailable",
        "out of range",
    ];
    let last = stderr.trim_end().rsplit(": ").next().unwrap_or_default();
    match kinds.contains(&last) {
        true => last.to_owned(),
        // containerd has no kind for many errors of runtimes, where berth has one.
        false if last.is_empty() => String::new(),
        false => ANY.to_owned(),
    }
}

/// An error of no kind.
const ANY: &str = "of no kind";

/// Output with the parts of comma-separated lists in order: Go's maps have none.
fn sorted(stdout: &str) -> String {
    let word = |word: &str| {
        let mut parts: Vec<_> = word.split(',').collect();
        parts.sort_unstable();
        parts.join(",")
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n";
    stdout.lines().map(line).collect()
}

/// The whole tour on one engine; its steps, and the events that were told of it.
fn take(flavor: Flavor, pulled: &str) -> Vec<(String, String)> {
    let mut tour = Tour::start(flavor);
    let log = tour.engine.path("events");
    let mut events = tour.engine.ctr_in_background(&["events"], &log);
    let told = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the subscription", || {
        tour.quietly("namespaces label probe probe=1").success();
        told().contains("/namespaces/update")
    });
    tour.quietly("namespaces rm probe").success();
    steps::namespaces(&mut tour);
    steps::images(&mut tour, pulled);
    steps::content(&mut tour, pulled);
    steps::leases(&mut tour);
    steps::snapshots(&mut tour);
    steps::containers(&mut tour);
    steps::tasks(&mut tour);
    steps::last(&mut tour);
    tour.quietly("namespaces label probe last=1").success();
    wait_until("the last event", || told().contains("\"last\":\"1\""));
    events.stop(Signal::SIGTERM);
    tour.steps.push(("events".into(), plain_events(&tour, &told())));
    tour.steps
}

/// Topics and messages of the events of the tour. Removals are left out that an engine may make
/// at any time, and what Debian's `ctr` can't read, because its containerd does not tell it.
fn plain_events(tour: &Tour, told: &str) -> String {
    let pids = Regex::new("\"pid\":[0-9]+").unwrap();
    // The namespace of an event about a namespace is another one in later releases.
    let namespaces = Regex::new("TIME [^ ]+ /namespaces/").unwrap();
    let left_out = ["/snapshot/remove", "/content/delete", "containerd.events.ContentCreate"];
    let lines = tour.plain(told);
    let kept = lines
        .lines()
        .skip_while(|line| !line.contains("/namespaces/delete"))
        .filter(|line| !left_out.iter().any(|topic| line.contains(topic)));
    kept.map(|line| {
        let line = pids.replace_all(line, "\"pid\":PID");
        namespaces.replace_all(&line, "TIME OWN /namespaces/").into_owned() + "\n"
    })
    .collect()
}

#[test]
fn both_engines_say_the_same() {
    if std::env::var("ENGINE").as_deref() == Ok("containerd") {
        return; // It is half of this test already.
    }
    let registry = Registry::start();
    let pulled = registry.reference("tour:1");
    let theirs = take(Flavor::Containerd, &pulled);
    let ours = take(Flavor::Berth, &pulled);
    let mut differing = String::new();
    for ((line, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        let of_no_kind = theirs.ends_with(ANY) && theirs.lines().next() == ours.lines().next();
        if theirs != ours && !of_no_kind {
            differing.push_str(&format!("$ ctr {line}\ncontainerd: {theirs}\nberth: {ours}\n\n"));
        }
    }
    assert!(differing.is_empty(), "{differing}");
}
