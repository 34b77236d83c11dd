//! Where the ledger is: one file per verb
