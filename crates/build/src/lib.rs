//! Where the source is: commit, checkout, packaging, provenance
