//! A panic as text.
//!
//! `catch_unwind` alone gives what was panicked with, but not where, and the default hook prints both to the standard
//! error of a daemon where nobody looks. So a hook of ours takes down text and place, for panics in calls that are
//! made through [`caught`]; every other panic goes to the hook that was there before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in the author's code.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Text and place of the panic that is being caught on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes a call and turns its panic into text, instead of letting it be printed.
pub(super) fn caught<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if GUARDED.get() {
                PANIC.replace(Some(text_and_place(panic)));
            } else {
                previous(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(before);
    result.map_err(|payload| {
        let seen = PANIC.take();
        let text = seen.unwrap_or_else(|| text(payload.as_ref()).to_owned());
        // Dropping anything else could run code of the author's that panics again.
        if !(payload.is::<&str>() || payload.is::<String>()) {
            std::mem::forget(payload);
        }
        text
    })
}

fn text_and_place(panic: &PanicHookInfo<'_>) -> String {
    let text = text(panic.payload());
    panic
        .location()
        .map_or_else(|| text.to_owned(), |place| format!("{text}, at {place}"))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
