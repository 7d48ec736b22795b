//! How a guarded socket is read and written, and how it ends.

use std::{
    pin::Pin,
    task::{Context, Poll, Wake as _, ready},
};

use futures_util::{Sink, Stream};

use super::{GuardedSocket, SocketError, State};
use crate::{CloseFrame, End, Frame, Verdict, Wire, event};

impl<T, W, E> Stream for GuardedSocket<T, W>
where
    T: Stream<Item = Result<W::Message, E>> + Sink<W::Message, Error = E> + Unpin,
    W: Wire,
{
    type Item = Result<W::Message, SocketError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let waker = this.halves.reading(cx);
        let cx = &mut Context::from_waker(&waker);
        loop {
            if !this.is_open(cx) {
                ready!(this.poll_ended(cx));
                return Poll::Ready(None);
            }
            if this.replying || this.stalled.is_some() {
                match this.poll_write(cx, true) {
                    Poll::Pending if this.replying => return Poll::Pending,
                    Poll::Pending => {}
                    Poll::Ready(Err(SocketError::PeerTooSlow)) => {
                        return Poll::Ready(Some(Err(SocketError::PeerTooSlow)));
                    }
                    // If the socket failed, reading tells how.
                    Poll::Ready(_) => this.replying = false,
                }
            }
            let Some(message) = ready!(Pin::new(&mut this.socket).poll_next(cx)) else {
                this.enter(State::Ended);
                return Poll::Ready(None);
            };
            match message.map(|message| this.judge(message)) {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(error) => return Poll::Ready(Some(Err(SocketError::Socket(error)))),
            }
        }
    }
}

impl<T, W, E> Sink<W::Message> for GuardedSocket<T, W>
where
    T: Stream<Item = Result<W::Message, E>> + Sink<W::Message, Error = E> + Unpin,
    W: Wire,
{
    type Error = SocketError<E>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let waker = this.halves.writing(cx);
        let cx = &mut Context::from_waker(&waker);
        if this.is_open(cx) {
            return this.poll_write(cx, false);
        }
        ready!(this.poll_ended(cx));
        Poll::Ready(Err(SocketError::Ended))
    }

    fn start_send(self: Pin<&mut Self>, message: W::Message) -> Result<(), Self::Error> {
        let this = self.get_mut();
        if !matches!(this.state, State::Open) {
            return Err(SocketError::Ended);
        }
        let is_close = W::frame(&message) == Frame::Close;
        // Not given to the socket at once, because a reply may have taken the room there that
        // `poll_ready` has found.
        this.unsent.push_back(message);
        if is_close {
            this.by_handler = true;
            this.begin_ending();
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let waker = this.halves.writing(cx);
        let cx = &mut Context::from_waker(&waker);
        if this.is_open(cx) {
            return this.poll_write(cx, true);
        }
        ready!(this.poll_ended(cx));
        Poll::Ready(if this.by_handler { Ok(()) } else { Err(SocketError::Ended) })
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let waker = this.halves.writing(cx);
        let cx = &mut Context::from_waker(&waker);
        if this.is_open(cx) {
            this.by_handler = true;
            this.end(&End::new(CloseFrame::fitting(1000, "")));
        }
        this.poll_ended(cx).map(Ok)
    }
}

impl<T, W, E> GuardedSocket<T, W>
where
    T: Stream<Item = Result<W::Message, E>> + Sink<W::Message, Error = E> + Unpin,
    W: Wire,
{
    /// Whether the session goes on, now that whatever may end it has been asked.
    fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.state, State::Open) {
            return false;
        }
        let mut ends = self.ends.iter_mut();
        let come = ends.find_map(|(event, end)| event.as_mut().poll(cx).is_ready().then_some(end));
        let Some(end) = come.cloned() else { return true };
        self.end(&end);
        false
    }

    /// What the handler gets in the place of the client's message, if anything.
    fn judge(&mut self, message: W::Message) -> Option<W::Message> {
        let max_len = self.guard.max_message_len();
        match W::frame(&message) {
            Frame::Text(text) if text.len() > max_len => self.end(&End::too_big()),
            Frame::Text(text) => match self.guard.client(text) {
                Verdict::Forward(_) => return Some(message),
                Verdict::Rewrite { text, kept } => {
                    event::kept(&kept);
                    return Some(W::text(text));
                }
                Verdict::Reply(event) => {
                    self.unsent.push_back(W::text(event));
                    self.replying = true;
                }
                Verdict::End(end) => self.end(&end),
            },
            Frame::Binary(_) if !self.guard.takes_binary() => self.end(&End::unsupported()),
            Frame::Binary(bytes) if bytes.len() > max_len => self.end(&End::too_big()),
            Frame::Binary(_) | Frame::Close | Frame::Other => return Some(message),
        }
        None
    }

    /// Begins to end the session in this way.
    fn end(&mut self, end: &End) {
        self.unsent.extend(self.guard.last_event(end).map(W::text));
        self.unsent.push_back(W::close(end.close()));
        self.begin_ending();
    }

    fn begin_ending(&mut self) {
        let deadline = self.runtime.sleep(self.close_deadline);
        self.enter(State::Ending(deadline));
    }

    /// A change of state concerns who reads and who writes.
    fn enter(&mut self, state: State) {
        self.state = state;
        // What they hold is not held longer than the session lasts.
        self.ends.clear();
        self.halves.wake_by_ref();
    }

    /// Says what is left to say, then waits for the client to be gone, no longer than allowed.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let State::Ending(deadline) = &mut self.state {
            let overdue = deadline.as_mut().poll(cx).is_ready();
            // A failure to write says little: a client that closed first is still to be read.
            let _ = self.poll_unsent(cx, true);
            if overdue || !matches!(ready!(Pin::new(&mut self.socket).poll_next(cx)), Some(Ok(_))) {
                self.enter(State::Ended);
            }
        }
        Poll::Ready(())
    }

    /// Writes what is unsent, and flushes if asked to, unless the client takes too long to read.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        flush: bool,
    ) -> Poll<Result<(), SocketError<E>>> {
        if let Poll::Ready(written) = self.poll_unsent(cx, flush) {
            self.stalled = None;
            return Poll::Ready(written.map_err(SocketError::Socket));
        }
        let stalled = self.stalled.get_or_insert_with(|| self.runtime.sleep(self.write_deadline));
        ready!(stalled.as_mut().poll(cx));
        self.enter(State::Ended);
        Poll::Ready(Err(SocketError::PeerTooSlow))
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>, flush: bool) -> Poll<Result<(), E>> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.unsent.is_empty() {
            ready!(socket.as_mut().poll_ready(cx))?;
            if let Some(message) = self.unsent.pop_front() {
                socket.as_mut().start_send(message)?;
            }
        }
        if flush { socket.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }
}

// Nothing in it is pinned: the socket is asked to be `Unpin`, and messages are moved.
impl<T: Unpin, W: Wire> Unpin for GuardedSocket<T, W> {}
