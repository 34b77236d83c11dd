-- Every table is declared in schema.rs as ledger, projection or operational (docs/controls.md, invariant I8).
-- One dialect for SQLite and PostgreSQL: TEXT and BIGINT, no autoincrement, no defaults that compute.

-- ledger -------------------------------------------------------------------------------------------------

CREATE TABLE entry (
    seq BIGINT PRIMARY KEY,
    kind TEXT NOT NULL,
    time TEXT NOT NULL,
    actor TEXT NOT NULL,
    leaf_hash TEXT NOT NULL,
    leaf TEXT NOT NULL
);

CREATE TABLE node (
    level BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (level, idx)
);

CREATE TABLE checkpoint (
    size BIGINT PRIMARY KEY,
    note TEXT NOT NULL
);

-- projections ----------------------------------------------------------------------------------------------

CREATE TABLE component (
    name TEXT PRIMARY KEY,
    policy TEXT NOT NULL,
    home TEXT NOT NULL,
    last_build BIGINT NOT NULL
);

CREATE TABLE build (
    component TEXT NOT NULL,
    number BIGINT NOT NULL,
    build_key TEXT NOT NULL,
    version TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    line TEXT NOT NULL,
    source TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'failed', 'published')),
    digest TEXT,
    log TEXT,
    reason TEXT,
    time TEXT NOT NULL,
    PRIMARY KEY (component, number),
    UNIQUE (component, build_key),
    UNIQUE (component, version)
);

CREATE TABLE built_commit (
    component TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (component, commit_id, number)
);
CREATE INDEX built_commit_by_commit ON built_commit (commit_id);

CREATE TABLE manifest (
    component TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    subject TEXT,
    PRIMARY KEY (component, digest)
);
CREATE INDEX manifest_by_subject ON manifest (component, subject);
CREATE INDEX manifest_by_digest ON manifest (digest);

CREATE TABLE version (
    component TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    number BIGINT,
    commit_id TEXT,
    log TEXT,
    time TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (component, name)
);
CREATE INDEX version_by_digest ON version (digest);
CREATE INDEX version_by_number ON version (component, number);
CREATE INDEX version_by_seq ON version (component, seq);

CREATE TABLE channel (
    component TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (component, name)
);

CREATE TABLE channel_move (
    component TEXT NOT NULL,
    name TEXT NOT NULL,
    seq BIGINT NOT NULL,
    digest TEXT,
    time TEXT NOT NULL,
    PRIMARY KEY (component, name, seq)
);

CREATE TABLE overwrite_refused (
    component TEXT NOT NULL,
    version TEXT NOT NULL,
    pushed TEXT NOT NULL,
    actor TEXT NOT NULL,
    day TEXT NOT NULL,
    PRIMARY KEY (component, version, pushed, actor, day)
);

CREATE TABLE location (
    digest TEXT NOT NULL,
    place TEXT NOT NULL,
    verified_at TEXT NOT NULL,
    PRIMARY KEY (digest, place)
);

CREATE TABLE evidence (
    component TEXT NOT NULL,
    digest TEXT NOT NULL,
    envelope TEXT NOT NULL,
    predicate_type TEXT NOT NULL,
    result TEXT NOT NULL,
    signer TEXT NOT NULL,
    environment TEXT,
    attachment TEXT,
    time TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (component, digest, envelope)
);

CREATE TABLE pipeline (
    component TEXT NOT NULL,
    seq BIGINT NOT NULL,
    digest TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (component, seq)
);

CREATE TABLE promotion (
    seq BIGINT PRIMARY KEY,
    component TEXT NOT NULL,
    environment TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('granted', 'refused')),
    decision TEXT NOT NULL,
    statement TEXT,
    time TEXT NOT NULL
);
CREATE INDEX promotion_by_place ON promotion (component, environment, seq);

CREATE TABLE deployment (
    component TEXT NOT NULL,
    environment TEXT NOT NULL,
    generation BIGINT NOT NULL,
    deployment_key TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT,
    config TEXT NOT NULL,
    target TEXT NOT NULL,
    decision TEXT NOT NULL,
    rollback_of BIGINT,
    state TEXT NOT NULL CHECK (state IN ('started', 'succeeded', 'failed', 'errored')),
    reason TEXT,
    restored BIGINT,
    needs TEXT,
    started TEXT NOT NULL,
    finished TEXT,
    PRIMARY KEY (component, environment, generation)
);
CREATE INDEX deployment_by_digest ON deployment (digest);

CREATE TABLE observation (
    component TEXT NOT NULL,
    environment TEXT NOT NULL,
    observed TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (component, environment)
);

CREATE TABLE event (
    environment TEXT NOT NULL,
    component TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (environment, component, seq)
);

CREATE TABLE hold (
    environment TEXT NOT NULL,
    component TEXT NOT NULL,
    reason TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (environment, component)
);

CREATE TABLE rejection (
    component TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('digest', 'key')),
    digest TEXT NOT NULL,
    environment TEXT NOT NULL,
    reason TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (component, kind, digest, environment)
);

-- operational ----------------------------------------------------------------------------------------------

CREATE TABLE lease (
    component TEXT NOT NULL,
    build_key TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    token TEXT NOT NULL,
    holder TEXT NOT NULL,
    until_millis BIGINT NOT NULL,
    PRIMARY KEY (component, build_key)
);

CREATE TABLE identity (
    subject TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    name TEXT NOT NULL
);

CREATE TABLE observed_at (
    component TEXT NOT NULL,
    environment TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (component, environment)
);
