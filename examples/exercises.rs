//! Checks the exercises of the book both ways: `cargo run --example exercises -- [ID…]`.
//!
//! In: docs/solutions/, and the tests in tests/exercises/. Out: which patch no longer applies,
//! and then nothing else is tried; which exercise has a test that passes without its solution;
//! and whether its tests and all others pass with it. It works in copies of the project, in
//! the folder where cargo puts what it builds, so nothing here is changed. Exit code: 0 all is
//! right, 1 something is wrong, 2 it could not be tried.
//!
//! Solutions that apply together are tried together, because the whole suite takes a minute, and
//! two copies are at work. If some fail together, each is tried alone: two of them may only
//! quarrel with each other.
//!
//! Book: docs/README.md.

#[path = "flags/mod.rs"]
mod flags;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::time::Instant;
use std::{env, fs, io, thread};

use argh::FromArgs;

/// Check exercises both ways: their tests fail before the solution, and pass after it.
#[derive(FromArgs)]
struct Flags {
    /// only see whether each solution still applies
    #[argh(switch)]
    apply_only: bool,
    /// choose so many exercises at random
    #[argh(option, arg_name = "N")]
    random: Option<usize>,
    /// only build the flawed server of exercise 3.2 with this number, and say where it is
    #[argh(option, arg_name = "N")]
    flaw: Option<u32>,
    /// numbers of exercises, such as 5.2 (default: all)
    #[argh(positional, arg_name = "ID")]
    ids: Vec<String>,
}

/// What is to be done, with the numbers of exercises.
enum Job {
    /// See that their tests fail without the solutions.
    Unsolved(Vec<String>),
    /// See that with the solutions they pass, and all others too.
    Solved(Vec<String>),
}

/// A copy of the project, where solutions are put in and taken out.
struct Copy {
    folder: PathBuf,
    target: PathBuf,
    solutions: PathBuf,
}

/// For each exercise its tests, and whether they passed.
type Results = BTreeMap<String, BTreeMap<String, bool>>;

fn main() -> ExitCode {
    let flags: Flags = match flags::read("exercises", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("exercises: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(flags: &Flags) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(number) = flags.flaw {
        println!("{}", flawed(root, number)?.display());
        return Ok(true);
    }
    let (begun, copy) = (Instant::now(), Copy::of(root, "tree")?);
    let all = copy.all()?;
    let ids = chosen(flags, &all)?;
    let stale = copy.stale(&all)?;
    for id in &stale {
        println!("{id}: docs/solutions/{id}.patch no longer applies");
    }
    println!("{} of {} solutions apply", all.len() - stale.len(), all.len());
    let stale_flaws = copy.stale_flaws()?;
    for flaw in &stale_flaws {
        println!("3.2: tests/exercises/flaws/{flaw} no longer applies");
    }
    let applies = stale.is_empty() && stale_flaws.is_empty();
    if flags.apply_only || !applies {
        return Ok(applies);
    }
    let mut jobs = VecDeque::from([Job::Unsolved(ids.clone())]);
    let mut waiting = ids;
    while !waiting.is_empty() {
        let (together, rest) = copy.apply_some(waiting)?;
        copy.reset()?;
        jobs.push_back(Job::Solved(together));
        waiting = rest;
    }
    let second = Copy::of(root, "second")?;
    let jobs = Mutex::new(jobs);
    let is_right = thread::scope(|scope| {
        let other = scope.spawn(|| second.work(&jobs));
        let is_right = copy.work(&jobs)?;
        let other = other.join().map_err(|_| io::Error::other("the second worker panicked"))?;
        other.map(|other| is_right && other)
    })?;
    println!(
        "{} in {} s",
        if is_right { "all is right" } else { "failed" },
        begun.elapsed().as_secs()
    );
    Ok(is_right)
}

/// Builds the server with one flaw, and gives the program.
fn flawed(root: &Path, number: u32) -> io::Result<PathBuf> {
    let copy = Copy::of(root, "flawed")?;
    copy.git(&["apply", &format!("tests/exercises/flaws/{number}.patch")])?;
    let built = copy.cargo(&["build", "--bin", "ehlo"])?;
    if !built.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&built.stderr).into_owned()));
    }
    let program = work(root).join(format!("ehlo-{number}"));
    fs::copy(copy.target.join("debug/ehlo"), &program)?;
    Ok(program)
}

/// Where everything is made: beside what cargo makes.
fn work(root: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("exercises")
}

/// The exercises that were asked for.
fn chosen(flags: &Flags, all: &[String]) -> io::Result<Vec<String>> {
    if let Some(id) = flags.ids.iter().find(|id| !all.contains(id)) {
        return Err(io::Error::other(format!("there is no docs/solutions/{id}.patch")));
    }
    let mut ids = if flags.ids.is_empty() { all.to_vec() } else { flags.ids.clone() };
    while flags.random.is_some_and(|count| ids.len() > count) {
        ids.swap_remove(random_below(ids.len())?);
    }
    ids.sort_by_key(|id| sort_key(id));
    Ok(ids)
}

/// A random number. A small bias does no harm here.
fn random_below(limit: usize) -> io::Result<usize> {
    let mut octets = [0; 4];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut octets)?;
    Ok(u32::from_ne_bytes(octets) as usize % limit)
}

/// 5.2 comes before 12.1.
fn sort_key(id: &str) -> Vec<u32> {
    id.split('.').filter_map(|part| part.parse().ok()).collect()
}

impl Copy {
    /// A fresh copy of all that is not made by a program. It is a repository of its own,
    /// because `git apply` passes silently over files outside of one.
    fn of(root: &Path, name: &str) -> io::Result<Copy> {
        let folder = work(root).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        copy_folder(root, &folder)?;
        let copy = Copy {
            folder,
            target: work(root).join(format!("{name}-target")),
            solutions: root.join("docs/solutions"),
        };
        copy.git(&["init", "--quiet"])?;
        copy.git(&["add", "--all"])?;
        copy.git(&["-c", "user.name=x", "-c", "user.email=x@x.example", "commit", "-qm", "copy"])?;
        Ok(copy)
    }

    /// The numbers of all exercises.
    fn all(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.solutions)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ids.extend(name.strip_suffix(".patch").map(str::to_owned));
        }
        Ok(ids)
    }

    fn patch(&self, id: &str) -> String {
        self.solutions.join(format!("{id}.patch")).display().to_string()
    }

    /// The flaws of exercise 3.2 that cannot be planted any more.
    fn stale_flaws(&self) -> io::Result<Vec<String>> {
        let mut stale = Vec::new();
        for entry in fs::read_dir(self.folder.join("tests/exercises/flaws"))? {
            let path = entry?.path();
            let is_patch = path.extension().is_some_and(|extension| extension == "patch");
            let patch = path.display().to_string();
            if is_patch && !self.run("git", &["apply", "--check", &patch])?.status.success() {
                stale.push(entry_name(&path));
            }
        }
        Ok(stale)
    }

    /// Those whose patch does not apply to the project as it is.
    fn stale(&self, ids: &[String]) -> io::Result<Vec<String>> {
        let mut stale = Vec::new();
        for id in ids {
            if !self.run("git", &["apply", "--check", &self.patch(id)])?.status.success() {
                stale.push(id.clone());
            }
        }
        Ok(stale)
    }

    /// Applies as many as go together. Gives these, and the rest.
    fn apply_some(&self, ids: Vec<String>) -> io::Result<(Vec<String>, Vec<String>)> {
        let (mut applied, mut rest) = (Vec::new(), Vec::new());
        for id in ids {
            // One line around a change has to be as it was: others may be from another solution.
            let applies = self.run("git", &["apply", "-C1", &self.patch(&id)])?.status.success();
            if applies { applied.push(id) } else { rest.push(id) }
        }
        Ok((applied, rest))
    }

    fn reset(&self) -> io::Result<()> {
        self.git(&["checkout", "--quiet", "."])?;
        self.git(&["clean", "-fdq"])
    }

    /// Does what is to be done, until there is nothing. Whether all was right.
    fn work(&self, jobs: &Mutex<VecDeque<Job>>) -> io::Result<bool> {
        let mut is_right = true;
        loop {
            let job = jobs.lock().ok().and_then(|mut jobs| jobs.pop_front());
            match job {
                None => return Ok(is_right),
                Some(Job::Unsolved(ids)) => {
                    let solved = self.passing(&ids)?;
                    for id in &solved {
                        println!("{id}: its test passes without the solution");
                    }
                    is_right &= solved.is_empty();
                }
                Some(Job::Solved(ids)) => {
                    let passes = self.check(&ids)?;
                    is_right &= passes || (ids.len() > 1 && self.check_alone(ids)?);
                }
            }
        }
    }

    /// Those with a test that passes: none should before the solution is there.
    fn passing(&self, ids: &[String]) -> io::Result<Vec<String>> {
        let (results, _) = self.exercise_tests(ids)?;
        let missing = ids.iter().find(|id| !results.contains_key(*id));
        if let Some(id) = missing {
            return Err(io::Error::other(format!("exercise {id} has no test")));
        }
        let has_passed =
            |outcomes: &BTreeMap<String, bool>| outcomes.values().any(|passed| *passed);
        Ok(results.into_iter().filter(|(_, all)| has_passed(all)).map(|(id, _)| id).collect())
    }

    /// Whether each of these passes without the others.
    fn check_alone(&self, ids: Vec<String>) -> io::Result<bool> {
        let mut is_right = true;
        for id in ids {
            is_right &= self.check(&[id])?;
        }
        Ok(is_right)
    }

    /// Whether with their solutions the tests of these exercises pass, and all others too.
    fn check(&self, ids: &[String]) -> io::Result<bool> {
        self.apply_some(ids.to_vec())?;
        let is_right = self.check_applied(ids);
        self.reset()?;
        is_right
    }

    fn check_applied(&self, ids: &[String]) -> io::Result<bool> {
        let mut told = format!("with {}:\n", ids.join(", "));
        let (results, mut said) = self.exercise_tests(ids)?;
        let mut is_right = true;
        for id in ids {
            let all = results.get(id).cloned().unwrap_or_default();
            let failed: Vec<String> =
                all.iter().filter(|(_, passed)| !**passed).map(|(test, _)| test.clone()).collect();
            is_right &= !all.is_empty() && failed.is_empty();
            match failed.as_slice() {
                [] if all.is_empty() => told += &format!("  {id}: its tests did not run\n"),
                [] => told += &format!("  {id}: its tests pass\n"),
                failed => told += &format!("  {id}: fails: {}\n", failed.join(", ")),
            }
        }
        let output = self.cargo(&["test", "--no-fail-fast"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed: Vec<&str> = text.lines().filter_map(failed_test).collect();
        said += &what_failed_tests_said(&text);
        if output.status.success() {
            told += "  all other tests pass";
        } else {
            told += &format!("  of the other tests fail: {}", failed.join(", "));
            if failed.is_empty() {
                told += &format!("\n{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        is_right &= output.status.success();
        println!("{told}");
        if !is_right {
            println!("{said}");
        }
        Ok(is_right)
    }

    /// Runs the tests of exercises. Gives for each its tests, and whether they passed; then
    /// what the failed ones said.
    fn exercise_tests(&self, ids: &[String]) -> io::Result<(Results, String)> {
        let names: Vec<String> =
            ids.iter().map(|id| format!("exercise_{}_", id.replace('.', "_"))).collect();
        let mut args = vec!["test", "--test", "exercises", "--", "--ignored"];
        args.extend(names.iter().map(String::as_str));
        // The programs that the tests run have to be there, too.
        let built = self.cargo(&["build", "--bins", "--examples"])?;
        if !built.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&built.stderr).into_owned()));
        }
        let output = self.cargo(&args)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut results = Results::new();
        for line in text.lines() {
            let Some((test, outcome)) =
                line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
            else {
                continue;
            };
            for (id, name) in ids.iter().zip(&names) {
                if test.contains(name.as_str()) {
                    let all = results.entry(id.clone()).or_default();
                    all.insert(test.to_owned(), outcome == "ok");
                }
            }
        }
        if results.is_empty() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok((results, what_failed_tests_said(&text)))
    }

    fn cargo(&self, args: &[&str]) -> io::Result<Output> {
        self.run(env!("CARGO"), args)
    }

    fn git(&self, args: &[&str]) -> io::Result<()> {
        let output = self.run("git", args)?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn run(&self, program: &str, args: &[&str]) -> io::Result<Output> {
        Command::new(program)
            .args(args)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .output()
    }
}

/// The last part of a path.
fn entry_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name in `test x ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// What each failed test wrote: in the output of each test program it stands between two
/// lines `failures:`.
fn what_failed_tests_said(output: &str) -> String {
    output.split("\nfailures:\n").skip(1).step_by(2).collect()
}

/// Copies what belongs to the project: not what git and cargo keep beside it.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_made = ["target", ".git", "spool"].iter().any(|made| name == *made);
        if is_made {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to.join(name))?;
        } else {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
