//! Where it runs: target drivers, the supervisor, observation
