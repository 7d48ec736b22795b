//! The threads that wait for the disk, so that no task does.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{
            Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
        },
    },
    thread,
    time::Duration,
};

use futures_channel::oneshot;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    fault::Fault,
    file::{Access, Open, Place},
    uses::Uses,
};
use crate::{Answer, StoreError};

/// How many questions may wait; one more is answered with an error at once.
const READ_QUEUE: usize = 1_024;
/// The same for changes.
const WRITE_QUEUE: usize = 1_024;
/// How many changes are committed together.
const BATCH: usize = 256;
/// How long is waited for the last of them.
const END_DEADLINE: Duration = Duration::from_secs(1);

const OVERLOADED: Fault = Fault::new("more is asked of the file than the disk can do");
const STOPPED: Fault = Fault::new("the thread that works on the file has ended");

/// The answer of a thread.
pub(super) type Asked<T> = Answer<'static, Result<T, StoreError>>;

fn queue<Job>(queue: &SyncSender<Job>, job: Job) -> Result<(), StoreError> {
    queue.try_send(job).map_err(|refused| match refused {
        TrySendError::Full(_) => OVERLOADED.into(),
        TrySendError::Disconnected(_) => STOPPED.into(),
    })
}

fn answer<T: Send + 'static>(told: oneshot::Receiver<Result<T, Fault>>) -> Asked<T> {
    Answer::pending(async { Ok(told.await.unwrap_or(Err(STOPPED))?) })
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
    let thread = thread::Builder::new().name("key-store".to_owned());
    match thread.spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::io("no thread can be started", &error)),
    }
}

/// Does blocking work once, on a thread of its own.
pub(super) async fn once<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (tell, told) = oneshot::channel();
    start(move || {
        let _gone = tell.send(work());
    })?;
    told.await.unwrap_or(Err(STOPPED))
}

/// One connection, which is opened when it is needed and again when it has failed.
struct Desk {
    place: Arc<Place>,
    access: Access,
    open: Option<Open>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.close(&self.place);
        }
    }
}

impl Desk {
    const fn new(place: Arc<Place>, access: Access) -> Self {
        Self { place, access, open: None }
    }

    /// Answers nothing that was not read from, or written to, the file that stands in its place.
    fn work<T>(&mut self, work: impl FnOnce(&Open) -> Result<T, Fault>) -> Result<T, Fault> {
        let open = self.open()?;
        let done = work(&open).and_then(|done| open.check(&self.place).map(|()| done));
        if !done.as_ref().is_err_and(Fault::is_of_connection) {
            self.open = Some(open);
        }
        done
    }

    fn open(&mut self) -> Result<Open, Fault> {
        if let Some(open) = self.open.take() {
            match open.check(&self.place) {
                Ok(()) => return Ok(open),
                Err(fault) if !fault.is_of_connection() => {
                    self.open = Some(open);
                    return Err(fault);
                }
                // It may be back under its name since.
                Err(_) => {}
            }
        }
        self.place.open(self.access)
    }
}

type Read = Box<dyn FnOnce(&mut Desk) + Send>;

/// The threads that read. They end when this is dropped.
#[derive(Debug, Clone)]
pub(super) struct Readers(SyncSender<Read>);

impl Readers {
    pub(super) fn start(place: &Arc<Place>, threads: usize) -> Result<Self, Fault> {
        let (sender, jobs) = sync_channel::<Read>(READ_QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let (mut desk, jobs) = (Desk::new(Arc::clone(place), Access::Read), Arc::clone(&jobs));
            let next = move || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            start(move || {
                while let Ok(read) = next() {
                    read(&mut desk);
                }
            })?;
        }
        Ok(Self(sender))
    }

    pub(super) fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Asked<T> {
        self.ask_file(move |open| read(&open.connection))
    }

    /// The same of whoever asks which file and connection it is.
    pub(super) fn ask_file<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Open) -> Result<T, Fault> + Send + 'static,
    ) -> Asked<T> {
        let (tell, told) = oneshot::channel();
        let read: Read = Box::new(move |desk| {
            // Who has given up waiting shall not keep others waiting.
            if !tell.is_canceled() {
                let _gone = tell.send(desk.work(read));
            }
        });
        match queue(&self.0, read) {
            Ok(()) => answer(told),
            Err(error) => Answer::ready(Err(error)),
        }
    }
}

/// Something to be changed, together with who waits for it.
trait Change: Send {
    /// Fails if nothing that was begun with it can be committed.
    fn make(&mut self, connection: &Connection) -> Result<(), Fault>;

    /// Answers, now that it is committed or has failed.
    fn settle(self: Box<Self>, committed: Result<(), Fault>);
}

/// The thread that writes. It ends when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Writer(SyncSender<Box<dyn Change>>);

impl Writer {
    pub(super) fn start(place: &Arc<Place>, uses: Arc<Uses>) -> Result<(Self, Ending), Fault> {
        let (sender, changes) = sync_channel(WRITE_QUEUE);
        let desk = Desk::new(Arc::clone(place), Access::Write);
        let (running, ended) = channel();
        start(move || {
            write(desk, &changes, &uses);
            drop::<Sender<()>>(running);
        })?;
        Ok((Self(sender), Ending(Mutex::new(ended))))
    }

    /// Makes a change: all of it or nothing. Once it is on the disk, `then` is called with what it
    /// answered, and makes the answer of that.
    ///
    /// It is made also if nobody waits for the answer any more.
    pub(super) fn ask<T: Send + 'static, U: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Asked<U> {
        let (tell, told) = oneshot::channel();
        let change = Pending { change: Some(change), made: Err(STOPPED), then, tell };
        match queue(&self.0, Box::new(change)) {
            Ok(()) => answer(told),
            Err(error) => Answer::ready(Err(error)),
        }
    }
}

/// The end of the thread that writes, for which whoever drops this waits a little: what it has
/// still to write is written then.
pub(super) struct Ending(Mutex<Receiver<()>>);

impl Drop for Ending {
    fn drop(&mut self) {
        let ended = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ended = ended.recv_timeout(END_DEADLINE);
    }
}

struct Pending<C, T, A, U> {
    change: Option<C>,
    made: Result<T, Fault>,
    then: A,
    tell: oneshot::Sender<Result<U, Fault>>,
}

impl<C, T, A, U> Change for Pending<C, T, A, U>
where
    C: FnOnce(&Connection) -> Result<T, Fault> + Send,
    T: Send,
    A: FnOnce(T) -> U + Send,
    U: Send,
{
    fn make(&mut self, connection: &Connection) -> Result<(), Fault> {
        let Some(change) = self.change.take() else { return Ok(()) };
        run(connection, "SAVEPOINT change")?;
        self.made = change(connection);
        match &self.made {
            Ok(_) => {}
            // A full disk, for one, may have ended the transaction.
            Err(fault) if fault.is_of_connection() || connection.is_autocommit() => {
                return Err(fault.clone());
            }
            Err(_) => run(connection, "ROLLBACK TO change")?,
        }
        run(connection, "RELEASE change")
    }

    fn settle(self: Box<Self>, committed: Result<(), Fault>) {
        let Self { made, then, tell, .. } = *self;
        let answer = match committed.and(made) {
            // Code of others may run here, who hear of a revocation; the thread must outlive it.
            Ok(made) => catch_unwind(AssertUnwindSafe(|| then(made)))
                .map_err(|_| Fault::new("a listener panicked after the change was made")),
            Err(fault) => Err(fault),
        };
        let _gone = tell.send(answer);
    }
}

fn run(connection: &Connection, statement: &str) -> Result<(), Fault> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

fn write(mut desk: Desk, changes: &Receiver<Box<dyn Change>>, uses: &Uses) {
    loop {
        match changes.recv_timeout(uses.due_in()) {
            // What has come meanwhile is committed with it, so that all wait for the disk once.
            Ok(first) => {
                let more = changes.try_iter().take(BATCH - 1);
                commit(&mut desk, std::iter::once(first).chain(more).collect());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                while uses.write(|write| desk.work(|open| in_transaction(open, write))) {}
                return;
            }
        }
        if uses.due_in().is_zero() {
            uses.write(|write| desk.work(|open| in_transaction(open, write)));
        }
    }
}

fn commit(desk: &mut Desk, mut changes: Vec<Box<dyn Change>>) {
    let committed = desk.work(|open| {
        in_transaction(open, |connection| {
            changes.iter_mut().try_for_each(|change| change.make(connection))
        })
    });
    for change in changes {
        change.settle(committed.clone());
    }
}

fn in_transaction(
    open: &Open,
    write: impl FnOnce(&Connection) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let behavior = TransactionBehavior::Immediate;
    // Rolled back when it is dropped.
    let transaction = Transaction::new_unchecked(&open.connection, behavior)?;
    write(&transaction)?;
    Ok(transaction.commit()?)
}
