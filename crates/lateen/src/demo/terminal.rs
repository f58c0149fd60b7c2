//! Who has the terminal? While this value lives, the live view has it; then it is as it was.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::backend::Backend as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{Receiver, channel};

use super::scene::Scene;
use super::view;

/// How long a key that nobody presses is waited for before looking whether the view has ended.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Whether there is a terminal that can show a live view.
pub(crate) fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb
}

/// The terminal in the hands of the live view.
pub(crate) struct Live {
    terminal: DefaultTerminal,
    ended: Arc<AtomicBool>,
    keys: Receiver<()>,
}

impl Live {
    /// Takes the terminal: alternate screen, keys one by one. A panic gives it back as well.
    ///
    /// # Errors
    /// The terminal does not take the settings.
    pub(crate) fn start() -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, keys) = channel(1);
        let over = ended.clone();
        // Reading keys blocks, so a thread of its own does it.
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match event::poll(KEY_WAIT).and_then(|is_there| is_there.then(event::read).transpose()) {
                    Ok(Some(event)) if ends(&event) => {
                        // A full channel holds the wish to end already.
                        let _ = sender.try_send(());
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { terminal, ended, keys })
    }

    /// Draws one moment.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn draw(&mut self, scene: &Scene<'_>) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, scene)).map(drop)
    }

    /// Draws everything anew with the next moment, should something else have written to the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn wipe(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and the answer would go to the keys' thread.
        self.terminal.backend_mut().clear()?;
        // What was drawn last is forgotten, so that the next drawing differs from it everywhere.
        self.terminal.swap_buffers();
        Ok(())
    }

    /// Waits until the user wants to end.
    pub(crate) async fn ended(&mut self) {
        if self.keys.recv().await.is_none() {
            // No keys can be read any more; signals still end the demo.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        ratatui::restore();
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c' | 'd') => is_control,
            KeyCode::Char('q') | KeyCode::Esc => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn q_escape_and_ctrl_c_end_and_nothing_else_does() {
        let key = |code, modifiers| ends(&Event::Key(KeyEvent::new(code, modifiers)));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Enter, KeyModifiers::NONE));
        assert!(!ends(&Event::Resize(80, 24)));
    }
}
