//! Whatever becomes of the file: a right answer or none, and right answers again once it is well.

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
    time::Instant,
};

use futures_util::FutureExt as _;
use rusqlite::Connection;
use tower_realtime_auth::{
    ApiKey, AuditFilter, Issued, KeyStore as _, Keys, NewKey, SqliteStore, http::StatusCode,
};

use crate::{
    beside, causes, connect, issue, open, open_impatient, place, process::Process, refused, status,
    support::SOON,
};

/// Neither a wrong 401 nor a wrong acceptance, of a lookup and of a change.
async fn is_unavailable(keys: &Keys<SqliteStore>, key: &ApiKey) -> String {
    assert_eq!(status(keys, key).await, StatusCode::SERVICE_UNAVAILABLE);
    let error = keys.issue(NewKey::secret("acme")).await.expect_err("no store");
    causes(&error)
}

/// Two keys, one of them revoked, and both known to all connections.
async fn keys_in(keys: &Keys<SqliteStore>) -> [Issued; 2] {
    let made = [issue(keys, "acme").await, issue(keys, "acme").await];
    keys.revoke(made[1].record().id()).await.unwrap();
    is_well(keys, &made).await;
    made
}

async fn is_well(keys: &Keys<SqliteStore>, [good, revoked]: &[Issued; 2]) {
    for _ in 0..8 {
        let asked = keys.store().lookup(good.record().digest()).await;
        asked.unwrap_or_else(|error| panic!("{}", causes(&error)));
        assert_eq!(status(keys, good.key()).await, StatusCode::OK);
        assert_eq!(status(keys, revoked.key()).await, StatusCode::UNAUTHORIZED);
    }
}

// ---- Where it is ----

#[tokio::test]
async fn a_file_that_is_gone_is_missed_until_it_is_back() {
    let (folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let away = folder.path().join("away");
    for _ in 0..3 {
        fs::rename(&path, &away).unwrap();
        for _ in 0..4 {
            let why = is_unavailable(&keys, made[0].key()).await;
            assert!(why.ends_with("the file is gone"), "{why}");
        }
        assert!(!path.exists(), "no empty one stands in its place");
        fs::rename(&away, &path).unwrap();
        is_well(&keys, &made).await;
        issue(&keys, "acme").await;
    }
    assert_eq!(keys.list(&Default::default()).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_copy_is_the_same_store_and_another_is_not() {
    let (folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let [copy, other] = ["copy.db", "other.db"].map(|name| folder.path().join(name));
    let backup = Connection::open(&path).unwrap();
    backup.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(backup);
    let key = {
        let others = open(&other).await;
        issue(&others, "acme").await
    };
    // Whose log is written back into it once it is closed.
    while beside(&other, "-wal").exists() {
        tokio::task::yield_now().await;
    }

    let session = connect(&keys, made[0].key()).await.unwrap().revoked();
    let hide = |keep: &Path| {
        for suffix in ["", "-wal", "-shm"] {
            let _there = fs::rename(beside(&path, suffix), beside(keep, suffix));
        }
    };
    hide(&folder.path().join("first.db"));
    fs::rename(&other, &path).unwrap();
    for _ in 0..4 {
        let why = is_unavailable(&keys, key.key()).await;
        assert!(why.contains("another store") && why.contains("restart"), "{why}");
        assert_eq!(status(&keys, made[0].key()).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    hide(&folder.path().join("second.db"));
    fs::rename(&copy, &path).unwrap();
    is_well(&keys, &made).await;
    issue(&keys, "acme").await;
    // It may be older: who knows what was revoked since.
    tokio::time::timeout(SOON, session).await.expect("told that news were lost");
}

#[tokio::test]
async fn without_its_log_nothing_is_answered_and_nothing_lost() {
    let (folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    fs::remove_file(beside(&path, "-wal")).unwrap();
    for _ in 0..4 {
        let why = is_unavailable(&keys, made[0].key()).await;
        assert!(why.contains("-wal") && why.contains("restart"), "{why}");
    }
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    drop(keys);
    is_well(&open(&copy).await, &made).await;
}

#[tokio::test]
async fn a_link_is_followed() {
    let (folder, path) = place();
    let link = folder.path().join("link.db");
    let made = {
        let keys = open(&path).await;
        keys_in(&keys).await
    };
    symlink(&path, &link).unwrap();
    let (keys, others) = (open(&link).await, open(&path).await);
    is_well(&keys, &made).await;
    others.revoke(made[0].record().id()).await.unwrap();
    assert_eq!(status(&keys, made[0].key()).await, StatusCode::UNAUTHORIZED);
}

// ---- What is in it ----

#[tokio::test]
async fn an_emptied_file_is_refused() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let whole = {
        // All of it in the file itself.
        let other = Connection::open(&path).unwrap();
        other.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        fs::read(&path).unwrap()
    };
    fs::write(&path, "").unwrap();
    for _ in 0..4 {
        let why = is_unavailable(&keys, made[0].key()).await;
        assert!(why.contains("empty"), "{why}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is written into it");
    fs::write(&path, whole).unwrap();
    is_well(&keys, &made).await;
}

/// Wherever it is cut off or overwritten: of a key that is good never 401, of a revoked one never
/// that it is let through.
#[tokio::test]
async fn a_damaged_file_gives_no_wrong_answer() {
    let (folder, path) = place();
    let (made, last) = {
        let keys = open(&path).await;
        for _ in 0..200 {
            issue(&keys, "acme").await;
        }
        (keys_in(&keys).await, issue(&keys, "last").await)
    };
    while beside(&path, "-wal").exists() {
        tokio::task::yield_now().await;
    }
    let whole = fs::read(&path).unwrap();
    let page = 4_096;
    let pages = whole.len() / page;
    assert!(pages > 20 && whole.len() % page == 0, "{pages} pages");
    let (mut answered, mut failed) = (0, 0);
    let mut damaged = Vec::new();
    for at in 0..pages {
        damaged.push(whole[..at * page + 1].to_vec());
        for byte in [0, 0xff] {
            let mut bytes = whole.clone();
            bytes[at * page..][..page].fill(byte);
            damaged.push(bytes);
        }
    }
    for (number, bytes) in damaged.iter().enumerate() {
        let path = folder.path().join(format!("damaged_{number}.db"));
        fs::write(&path, bytes).unwrap();
        let Ok(store) = SqliteStore::open(&path).await else {
            failed += 1;
            continue;
        };
        let keys = Keys::new(store);
        for (key, good) in [(&made[0], true), (&last, true), (&made[1], false)] {
            match status(&keys, key.key()).await {
                StatusCode::SERVICE_UNAVAILABLE => failed += 1,
                status => {
                    assert_eq!(status == StatusCode::OK, good, "damaged {number}");
                    answered += 1;
                }
            }
        }
    }
    assert!(answered > 0 && failed > 0, "{answered} answered, {failed} failed");
}

#[tokio::test]
async fn damage_that_is_repaired_is_forgotten() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let other = Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let whole = fs::read(&path).unwrap();
    // In place, page by page, as a failing disk would.
    fs::write(&path, vec![0xa5; whole.len()]).unwrap();
    // A change, so that nobody goes by what is remembered of it.
    let _refused = other.execute("UPDATE keys SET used = used", []);
    for _ in 0..8 {
        for made in &made {
            assert_eq!(status(&keys, made.key()).await, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    drop(other);
    fs::write(&path, whole).unwrap();
    is_well(&keys, &made).await;
}

#[tokio::test]
async fn what_is_no_store_of_ours_is_refused_and_left_alone() {
    let (folder, path) = place();
    let database = |name: &str, sql: &str| {
        let path = folder.path().join(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        path
    };
    drop(open(&path).await);
    let newer = folder.path().join("newer.db");
    while beside(&path, "-wal").exists() {
        tokio::task::yield_now().await;
    }
    fs::copy(&path, &newer).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let text = folder.path().join("text.db");
    fs::write(&text, "hello, world. ".repeat(100)).unwrap();
    let empty = folder.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    for (path, expected) in [
        (empty, "empty"),
        (text, "not an SQLite database"),
        (newer, "newer version"),
        (database("tables.db", "CREATE TABLE notes (text)"), "another program"),
        (database("numbered.db", "PRAGMA application_id = 7"), "another program"),
        (database("versioned.db", "PRAGMA user_version = 1"), "another program"),
        (folder.path().to_owned(), "cannot be opened"),
        (folder.path().join("no/such/folder.db"), "cannot be made"),
    ] {
        let before = fs::read(&path).ok();
        let why = refused(&path).await;
        assert!(why.contains(expected), "{path:?}: {why}");
        assert_eq!(fs::read(&path).ok(), before, "{path:?} is as it was");
        assert!(!beside(&path, "-wal").exists(), "{path:?}");
    }
}

#[tokio::test]
async fn a_log_without_its_file_is_kept() {
    let (_folder, path) = place();
    let log = beside(&path, "-wal");
    fs::write(&log, "what was written last").unwrap();
    for _ in 0..2 {
        assert!(refused(&path).await.contains("-wal"));
        assert!(!path.exists());
        assert_eq!(fs::read(&log).unwrap(), b"what was written last");
    }
}

/// What a newer version has written into a row is not left out.
#[tokio::test]
async fn a_restriction_that_is_not_known_lets_nobody_in() {
    for (column, value) in [
        ("grants", r#"{"version":1,"weekdays":["monday"]}"#),
        ("grants", r#"{"version":2}"#),
        ("grants", "none"),
        ("kind", "restricted"),
        ("environment", "sandbox"),
        ("algorithm", "sha3"),
    ] {
        let (_folder, path) = place();
        let keys = open(&path).await;
        let made = keys_in(&keys).await;
        let other = Connection::open(&path).unwrap();
        let sql = format!("UPDATE keys SET {column} = ?1 WHERE id = ?2");
        other.execute(&sql, [value, made[0].record().id().as_str()]).unwrap();
        let lookup = keys.store().lookup(made[0].record().digest()).await;
        let why = causes(&lookup.expect_err("no answer"));
        assert!(why.contains("update") || why.contains("newer"), "{why}");
        assert!(!why.contains(value), "{why}");
        assert_eq!(status(&keys, made[0].key()).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&keys, made[1].key()).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn what_cannot_be_done_whole_is_not_begun() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let made = [issue(&keys, "acme").await, issue(&keys, "acme").await];
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE keys SET revoked_at = ?1 WHERE id = ?2";
    for odd in [0, 1] {
        let (good, odd) = (&made[1 - odd], made[odd].record().id().as_str());
        other.execute(sql, rusqlite::params![-5, odd]).unwrap();
        // With others in one transaction, whose changes stand.
        let revoked = keys.revoke_account("acme");
        let (revoked, issued) = futures_util::join!(revoked, issue(&keys, "other"));
        let why = causes(&revoked.expect_err("unreadable"));
        assert!(why.contains("does not know"), "{why}");
        assert_eq!(status(&keys, good.key()).await, StatusCode::OK);
        assert_eq!(status(&keys, issued.key()).await, StatusCode::OK);
        other.execute(sql, rusqlite::params![None::<i64>, odd]).unwrap();
    }
    assert!(keys.audit(&AuditFilter::account("acme")).await.unwrap().len() == 2, "only made");
    assert_eq!(keys.revoke_account("acme").await.unwrap(), 2);
}

// ---- Others ----

#[tokio::test]
async fn nobody_waits_longer_for_a_lock_than_is_said() {
    let (_folder, path) = place();
    let keys = open_impatient(&path).await;
    let made = keys_in(&keys).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let error = keys.revoke(made[0].record().id()).await.expect_err("locked");
    assert!(causes(&error).contains("locked"), "{}", causes(&error));
    assert!(begun.elapsed() < SOON);
    // Who only reads need not wait.
    is_well(&keys, &made).await;
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(keys.revoke(made[0].record().id()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_lock_that_is_given_up_in_time_is_waited_for() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let issued = tokio::spawn({
        let keys = keys.clone();
        async move { issue(&keys, "acme").await }
    });
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(status(&keys, issued.await.unwrap().key()).await, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_queued_is_refused_at_once() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for _ in 0..2_000 {
        let mut revoke = Box::pin(keys.revoke(made[0].record().id()));
        match (&mut revoke).now_or_never() {
            Some(answer) => {
                assert!(causes(&answer.expect_err("refused")).contains("more is asked"));
                refused += 1;
            }
            None => waiting.push(revoke),
        }
    }
    assert!(refused > 0 && waiting.len() >= 1_024, "{refused} refused");
    other.execute_batch("COMMIT").unwrap();
    for revoke in waiting {
        assert_eq!(revoke.await.unwrap(), 1);
    }
}

// ---- The disk ----

/// The shell sets a limit on how large a file may grow, as a full disk does: writes fail.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_answered() {
    let (_folder, path) = place();
    drop(open(&path).await);
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes. The signal would kill it; ignored, the write fails.
    shell.args(["-c", r#"trap '' XFSZ; ulimit -f 4000; exec "$0" "$@""#]);
    shell.arg(env::current_exe().unwrap());
    let mut process = Process::start_by(shell, &path);
    let mut answered = Vec::new();
    let failed = loop {
        let said = process.ask("issue acme");
        match said.strip_prefix("failed: ") {
            Some(why) => break why.to_owned(),
            None => answered.push(said),
        }
        assert!(answered.len() < 10_000, "it must end");
    };
    assert!(failed.contains("the disk"), "{failed}");
    assert!(answered.len() > 10, "{} before", answered.len());
    let keys = open(&path).await;
    for said in &answered {
        let key = said.split_once(' ').unwrap().1;
        // It still answers what it can, and nothing wrong.
        let theirs = process.ask(&format!("connect {key}"));
        assert!(["200", "503"].contains(&&*theirs), "{theirs}");
        assert_eq!(status(&keys, &ApiKey::new(key).unwrap()).await, StatusCode::OK);
    }
    process.kill();
    drop((process, keys));
    let keys = open(&path).await;
    for said in &answered {
        let key = ApiKey::new(said.split_once(' ').unwrap().1).unwrap();
        assert_eq!(status(&keys, &key).await, StatusCode::OK);
    }
}

/// By a process that may not write: not root, whom nothing stops. It writes again once it may; only
/// what its connections share (`-shm`) must have been writable from the beginning.
#[tokio::test]
async fn a_file_that_cannot_be_written_is_still_read() {
    let (folder, path) = place();
    let keys = open(&path).await;
    let made = keys_in(&keys).await;
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // Where anybody can run it.
    let program = folder.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    for (path, bits) in [
        (folder.path(), 0o755),
        (&*program, 0o755),
        (&*path, 0o444),
        (&*beside(&path, "-wal"), 0o444),
        (&*beside(&path, "-shm"), 0o666),
    ] {
        mode(path, bits);
    }
    let mut command = Command::new(program);
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let mut process = Process::start_by(command, &path);
    assert_eq!(process.ask(&format!("connect {}", made[0].key().expose())), "200");
    assert_eq!(process.ask(&format!("connect {}", made[1].key().expose())), "401");
    let said = process.ask(&format!("revoke {}", made[0].record().id()));
    assert!(said.starts_with("failed: ") && said.contains("cannot be written"), "{said}");
    keys.revoke(made[0].record().id()).await.unwrap();
    assert_eq!(process.ask(&format!("connect {}", made[0].key().expose())), "401");

    for suffix in ["", "-wal"] {
        mode(&beside(&path, suffix), 0o666);
    }
    let said = process.ask("issue acme");
    assert!(said.starts_with("key_"), "{said}");
}

#[tokio::test]
async fn outside_of_a_runtime_it_says_so() {
    let (_folder, path) = place();
    let open = std::thread::spawn(move || {
        SqliteStore::open(path).now_or_never().expect("at once").map(drop)
    });
    let error = open.join().unwrap().expect_err("no runtime");
    assert!(causes(&error).contains("runtime"), "{}", causes(&error));
}
