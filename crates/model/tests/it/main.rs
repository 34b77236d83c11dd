//! The formats of the model, through its public door.

mod formats;
