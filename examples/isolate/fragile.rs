//! Stands for a C library that leaks, hangs and crashes. A program would call a real one through `unsafe extern "C"`; what that does to
//! the process is the same, and no `catch_unwind` helps against it.

use std::hint::black_box;
use std::{process, thread};

/// Counts the words of a text, unless the text is one of two that this library can't bear.
pub fn count_words(text: &str) -> usize {
    // Nothing ever frees this buffer. It is filled, so it takes memory and not only addresses.
    black_box(Box::leak(vec![1_u8; LEAK].into_boxed_slice()));
    match text {
        // As the C library's `free` does when it finds the heap damaged.
        "crash" => process::abort(),
        "hang" => loop {
            thread::park();
        },
        _ => text.split_whitespace().count(),
    }
}

/// How many bytes a call leaks.
const LEAK: usize = 1024 * 1024;
