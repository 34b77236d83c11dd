-- What versions follow from (format of the ledger unchanged; the projections are folded again after this migration).

ALTER TABLE component ADD COLUMN scheme TEXT;
ALTER TABLE version ADD COLUMN candidate TEXT;

-- The commits that the store was told of: enough to know which are whose ancestors, and what they bring.
CREATE TABLE known_commit (
    component TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    parents TEXT NOT NULL,
    author TEXT NOT NULL,
    bump TEXT,
    PRIMARY KEY (component, commit_id)
);
