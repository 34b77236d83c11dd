//! The tests of the program and of the repository.

mod formats;
mod tidy;
