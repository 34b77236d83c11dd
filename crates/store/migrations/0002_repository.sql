-- Rules of components, states of versions, and what collection needs to know (format of the ledger unchanged; the
-- projections are folded again after this migration).

ALTER TABLE component ADD COLUMN keep TEXT;
ALTER TABLE component ADD COLUMN patterns TEXT;
ALTER TABLE version ADD COLUMN deprecated TEXT;
ALTER TABLE version ADD COLUMN expired TEXT;
ALTER TABLE version ADD COLUMN expired_rule TEXT;
ALTER TABLE manifest ADD COLUMN seen TEXT NOT NULL DEFAULT '';
ALTER TABLE rejection ADD COLUMN pulls BIGINT NOT NULL DEFAULT 0;
CREATE INDEX version_of_digest ON version (component, digest);
CREATE INDEX promotion_by_digest ON promotion (component, digest);
CREATE INDEX channel_by_digest ON channel (component, digest);
CREATE INDEX evidence_by_digest ON evidence (component, digest);

-- The documents that entries name, beside manifests: they are kept as long as the ledger.
CREATE TABLE document (
    digest TEXT PRIMARY KEY
);

-- What a manifest needs, read from its bytes. A row of a manifest with itself says that it was read.
CREATE TABLE content (
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('self', 'content', 'optional', 'manifest')),
    PRIMARY KEY (manifest, digest)
);
CREATE INDEX content_by_digest ON content (digest);

-- Which blobs a component's clients may read: those that were uploaded or mounted there, or that its manifests need.
CREATE TABLE readable (
    component TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (component, digest)
);
CREATE INDEX readable_by_digest ON readable (digest);

-- Names that are to become versions when they are published.
CREATE TABLE draft (
    component TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    holder TEXT NOT NULL,
    until_millis BIGINT NOT NULL,
    PRIMARY KEY (component, version)
);
CREATE INDEX draft_by_digest ON draft (component, digest);

-- When the bytes of a blob were last hashed, and whether they were damaged then.
CREATE TABLE checked (
    digest TEXT PRIMARY KEY,
    checked_millis BIGINT NOT NULL,
    damaged TEXT
);
