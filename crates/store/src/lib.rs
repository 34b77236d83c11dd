//! What lasts: blobs, ledger, projections, keys
