-- A deployment that its target did not switch on (the projections are folded again after this migration).

DROP TABLE deployment;
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
    state TEXT NOT NULL CHECK (state IN ('started', 'succeeded', 'failed', 'errored', 'refused')),
    reason TEXT,
    restored BIGINT,
    needs TEXT,
    started TEXT NOT NULL,
    finished TEXT,
    PRIMARY KEY (component, environment, generation)
);
CREATE INDEX deployment_by_digest ON deployment (digest);
