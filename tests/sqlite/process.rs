//! A second process, with the file open too: this program, which is told by lines what to do.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tower_realtime_auth::{ApiKey, KeyId, NewKey, http::StatusCode};

use crate::{causes, connect, handshakes, issue, open};

const PATH: &str = "SQLITE_STORE_OF_TEST";

pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// One that has the file at `path` open, or is about to.
    pub fn start(path: &Path) -> Self {
        Self::start_by(Command::new(env::current_exe().unwrap()), path)
    }

    /// The same, started by a program that is given the rest of the command line.
    pub fn start_by(mut command: Command, path: &Path) -> Self {
        let mut child = command
            .args(["--exact", "process::another_process", "--ignored", "--nocapture", "--quiet"])
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// What it answers to a line.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear().expect("an answer")
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    /// What it says next; `None` once it has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("a line") == 0 {
                return None;
            }
            // Other lines are the test harness's.
            if let Some(said) = line.trim_end_matches('\n').strip_prefix("> ") {
                return Some(said.to_owned());
            }
        }
    }

    /// Kills it without a chance to do anything.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn say(line: impl std::fmt::Display) {
    println!("> {line}");
    io::stdout().flush().expect("somebody listens");
}

#[tokio::test]
#[ignore = "what other tests start as another process"]
async fn another_process() {
    let path = env::var_os(PATH).expect("the path of a file");
    let keys = open(Path::new(&path)).await;
    for line in io::stdin().lines() {
        let line = line.expect("a line");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("issue", account) => say(match keys.issue(NewKey::secret(account)).await {
                Ok(issued) => format!("{} {}", issued.record().id(), issued.key().expose()),
                Err(error) => format!("failed: {}", causes(&error)),
            }),
            ("revoke", id) => say(match keys.revoke(&KeyId::new(id)).await {
                Ok(records) => records.to_string(),
                Err(error) => format!("failed: {}", causes(&error)),
            }),
            ("connect", key) => {
                let key = ApiKey::new(key).expect("a key");
                say(match connect(&keys, &key).await {
                    Ok(_) => 200,
                    Err(status) => status.as_u16(),
                });
            }
            // So many handshakes at once, with what the inner service answers to them. It tells
            // when it begins.
            ("handshakes", what) => {
                let what: Vec<_> = what.split(' ').collect();
                let [tries, status, key] = what[..] else { panic!("{what:?}") };
                let (tries, key) = (tries.parse().unwrap(), ApiKey::new(key).expect("a key"));
                let inner = StatusCode::from_bytes(status.as_bytes()).expect("a status");
                say("begun");
                say(handshakes(&keys, &key, tries, inner).await);
            }
            ("issue_for_ever", account) => loop {
                say(issue(&keys, account).await.key().expose());
            },
            (other, _) => panic!("{other} is nothing to do"),
        }
    }
}
