BEGIN TRANSACTION;
CREATE TABLE archives (
	id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	name VARCHAR, 
	tree VARCHAR NOT NULL, 
	file_count INTEGER NOT NULL, 
	total_bytes INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_archives PRIMARY KEY (id)
);
INSERT INTO "archives" VALUES('arc_01m879x4xamwxe2pqhf5g2pf4w','usr_01m879x10z4rmyw561pjty3jzx','sources','b2f60131c0d787f942f2c39cce092458dc1ae3d3d98e3aec3be8754f688425f1',1,2,'2026-11-24 17:33:23.256620');
CREATE TABLE blobs (
	hash VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	touched_at DATETIME NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (hash)
);
INSERT INTO "blobs" VALUES('8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4',2,'2026-11-24 17:33:23.664224');
INSERT INTO "blobs" VALUES('b2f60131c0d787f942f2c39cce092458dc1ae3d3d98e3aec3be8754f688425f1',0,'2026-11-24 17:33:23.258551');
INSERT INTO "blobs" VALUES('83a4652c785a15ae6ece8b56f6191092984ffc6efac8d6b828646d9df79a0e6e',4,'2026-11-24 17:33:23.503077');
INSERT INTO "blobs" VALUES('564739ea8fa5926d4fa5c9734fed462061960a22e6b8d5c06e94969d97891bf2',3,'2026-11-24 17:33:23.525271');
INSERT INTO "blobs" VALUES('16a11a3ac7894f27e20edf0a11e820ee0d894a76907f691ee3fcb109b8613606',4,'2026-11-24 17:33:23.664224');
INSERT INTO "blobs" VALUES('ce8f1cc0871ac2a111fdadd885c10c85d4509875e94423b95d33e162dbde5d1e',1534,'2026-11-24 17:33:23.664224');
INSERT INTO "blobs" VALUES('73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac',2,'2026-11-24 17:33:24.753247');
CREATE TABLE checkpoints (
	id VARCHAR NOT NULL, 
	session_id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	workflow_id VARCHAR, 
	run_id VARCHAR, 
	step VARCHAR, 
	attempt VARCHAR, 
	name VARCHAR NOT NULL, 
	description VARCHAR, 
	status VARCHAR NOT NULL, 
	manifest JSON, 
	skipped JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_checkpoints PRIMARY KEY (id), 
	CONSTRAINT fk_checkpoints_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id), 
	CONSTRAINT uq_checkpoints_attempt UNIQUE (attempt)
);
INSERT INTO "checkpoints" VALUES('ckp_01m879x59e8gzv3zhgfa58x7j3','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','wf_01m879x4y95abvaff75vc9h92h','run_01m879x4zw97jth8b2a1w0rm0r','step-3','run_01m879x4zw97jth8b2a1w0rm0r-2-1-01a20e9e-940f-7dfa-9ab4-6cc44ad61b95','kept','after the first step','ready','{"version": 1, "filesystem": {"hash": "16a11a3ac7894f27e20edf0a11e820ee0d894a76907f691ee3fcb109b8613606", "bytes": 4, "files": 2}, "state": {"hash": "ce8f1cc0871ac2a111fdadd885c10c85d4509875e94423b95d33e162dbde5d1e", "bytes": 1534}}','[]','2026-11-24 17:33:23.631098');
CREATE TABLE definitions (
	workflow_id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	definition JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_definitions PRIMARY KEY (workflow_id, version), 
	CONSTRAINT fk_definitions_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES workflows (id)
);
INSERT INTO "definitions" VALUES('wf_01m879x4y95abvaff75vc9h92h',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say h\u00e9; complain ''no''; write a.txt hi"}, {"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "verify", "name": null, "criteria": "output contains ''h\u00e9''"}, {"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": "after the first step", "type": "checkpoint", "name": "kept"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": {"files": null, "archiveId": "arc_01m879x4xamwxe2pqhf5g2pf4w"}}','2026-11-24 17:33:23.275863');
INSERT INTO "definitions" VALUES('wf_01m879x4y95abvaff75vc9h92h',2,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say again"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": {"files": null, "archiveId": "arc_01m879x4xamwxe2pqhf5g2pf4w"}}','2026-11-24 17:33:23.785791');
INSERT INTO "definitions" VALUES('wf_01m879x5eqq5f8ww8qcjy9hwds',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "fail 3"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": null}','2026-11-24 17:33:23.799712');
INSERT INTO "definitions" VALUES('wf_01m879x5kz58448yr3pp2vf72w',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say never"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": null}','2026-11-24 17:33:23.969368');
INSERT INTO "definitions" VALUES('wf_01m879x5n3kanpebcsjn6ksmvj',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "wait ever"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": "dep_01m879x4vfr7kvmss89n0hgrtb", "domain": null, "requires": null, "workspace": null}','2026-11-24 17:33:24.006558');
INSERT INTO "definitions" VALUES('wf_01m879x5ntcjfzbf56034ws34z',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say a"}, {"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say b"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": "frontend", "requires": null, "workspace": null}','2026-11-24 17:33:24.029618');
INSERT INTO "definitions" VALUES('wf_01m879x68zv95drdjgt6b5g83q',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say x"}, {"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "verify", "name": null, "criteria": "approved"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": null}','2026-11-24 17:33:24.639714');
INSERT INTO "definitions" VALUES('wf_01m879x6j14h26dk1y4fnpxnwh',1,'{"steps": [{"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "wait held"}, {"id": null, "timeout": 300000, "retry": null, "onFailure": "fail", "environment": {}, "departmentId": null, "domain": null, "requires": null, "description": null, "type": "execute", "name": null, "command": "say never"}], "config": {"timeout": 86400000, "maxRetries": 0, "onSandboxLost": null, "priority": null, "sandbox": null}, "environment": {}, "departmentId": null, "domain": null, "requires": null, "workspace": null}','2026-11-24 17:33:24.929773');
CREATE TABLE departments (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	session_id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	domain VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	config JSON NOT NULL, 
	capabilities JSON NOT NULL, 
	deleted_at DATETIME, 
	CONSTRAINT pk_departments PRIMARY KEY (id), 
	CONSTRAINT fk_departments_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "departments" VALUES('2026-11-24 17:33:23.183594','2026-11-24 17:33:23.183604','dep_01m879x4vfr7kvmss89n0hgrtb','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','Frontend','frontend','active','{"maxConcurrentTasks": 1}','["react"]',NULL);
CREATE TABLE events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	subject VARCHAR NOT NULL, 
	seq INTEGER NOT NULL, 
	type VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	session_id VARCHAR, 
	workflow_id VARCHAR, 
	data JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT uq_events_subject_seq UNIQUE (subject, seq)
);
INSERT INTO "events" VALUES(1,'ses_01m879x4ty6yfq2chb0wztq3hb',1,'session.created','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:23.172690');
INSERT INTO "events" VALUES(2,'ses_01m879x4ty6yfq2chb0wztq3hb',2,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:23.185966');
INSERT INTO "events" VALUES(3,'ses_01m879x4vpps426dak8vvgw5qq',1,'session.created','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4vpps426dak8vvgw5qq',NULL,'{"sessionId": "ses_01m879x4vpps426dak8vvgw5qq", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:23.191751');
INSERT INTO "events" VALUES(4,'ses_01m879x4vpps426dak8vvgw5qq',2,'session.deleted','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4vpps426dak8vvgw5qq',NULL,'{"sessionId": "ses_01m879x4vpps426dak8vvgw5qq", "status": "deleted", "metrics": {"activeDepartments": 0, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:23.229583');
INSERT INTO "events" VALUES(5,'run_01m879x4zw97jth8b2a1w0rm0r',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 3, "progress": 0, "currentStep": null}','2026-11-24 17:33:23.331574');
INSERT INTO "events" VALUES(6,'ses_01m879x4ty6yfq2chb0wztq3hb',3,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 1, "runningTasks": 1}}','2026-11-24 17:33:23.333044');
INSERT INTO "events" VALUES(7,'run_01m879x4zw97jth8b2a1w0rm0r',2,'workflow.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.started", "status": "running", "step": 0, "totalSteps": 3, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.388Z"}}','2026-11-24 17:33:23.396736');
INSERT INTO "events" VALUES(8,'run_01m879x4zw97jth8b2a1w0rm0r',3,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.started", "status": "running", "step": 0, "totalSteps": 3, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.388Z"}}','2026-11-24 17:33:23.404950');
INSERT INTO "events" VALUES(9,'run_01m879x4zw97jth8b2a1w0rm0r',4,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.ended", "status": "running", "step": 1, "totalSteps": 3, "progress": 33, "currentStep": null, "endedStep": {"index": 0, "id": "step-1", "type": "execute", "status": "completed", "attempt": 1}}','2026-11-24 17:33:23.535297');
INSERT INTO "events" VALUES(10,'run_01m879x4zw97jth8b2a1w0rm0r',5,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.started", "status": "running", "step": 1, "totalSteps": 3, "progress": 33, "currentStep": {"index": 1, "id": "step-2", "type": "verify", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.574Z"}}','2026-11-24 17:33:23.575979');
INSERT INTO "events" VALUES(11,'run_01m879x4zw97jth8b2a1w0rm0r',6,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.ended", "status": "running", "step": 2, "totalSteps": 3, "progress": 66, "currentStep": null, "endedStep": {"index": 1, "id": "step-2", "type": "verify", "status": "completed", "attempt": 1}}','2026-11-24 17:33:23.595473');
INSERT INTO "events" VALUES(12,'run_01m879x4zw97jth8b2a1w0rm0r',7,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.started", "status": "running", "step": 2, "totalSteps": 3, "progress": 66, "currentStep": {"index": 2, "id": "step-3", "type": "checkpoint", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.623Z"}}','2026-11-24 17:33:23.625030');
INSERT INTO "events" VALUES(13,'run_01m879x4zw97jth8b2a1w0rm0r',8,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.ended", "status": "running", "step": 3, "totalSteps": 3, "progress": 99, "currentStep": null, "endedStep": {"index": 2, "id": "step-3", "type": "checkpoint", "status": "completed", "attempt": 1}}','2026-11-24 17:33:23.703619');
INSERT INTO "events" VALUES(14,'run_01m879x4zw97jth8b2a1w0rm0r',9,'workflow.completed','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x4y95abvaff75vc9h92h','{"workflowId": "wf_01m879x4y95abvaff75vc9h92h", "runId": "run_01m879x4zw97jth8b2a1w0rm0r", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.completed", "status": "completed", "step": 3, "totalSteps": 3, "progress": 100, "currentStep": null, "result": {"success": true, "checkpointIds": ["ckp_01m879x59e8gzv3zhgfa58x7j3"]}}','2026-11-24 17:33:23.733932');
INSERT INTO "events" VALUES(15,'ses_01m879x4ty6yfq2chb0wztq3hb',4,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 1, "runningTasks": 0}}','2026-11-24 17:33:23.738455');
INSERT INTO "events" VALUES(16,'run_01m879x5f10t0351dbn29hd3vw',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5eqq5f8ww8qcjy9hwds','{"workflowId": "wf_01m879x5eqq5f8ww8qcjy9hwds", "runId": "run_01m879x5f10t0351dbn29hd3vw", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": null}','2026-11-24 17:33:23.812198');
INSERT INTO "events" VALUES(17,'ses_01m879x4ty6yfq2chb0wztq3hb',5,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 2, "runningTasks": 1}}','2026-11-24 17:33:23.813528');
INSERT INTO "events" VALUES(18,'run_01m879x5f10t0351dbn29hd3vw',2,'workflow.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5eqq5f8ww8qcjy9hwds','{"workflowId": "wf_01m879x5eqq5f8ww8qcjy9hwds", "runId": "run_01m879x5f10t0351dbn29hd3vw", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.started", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.846Z"}}','2026-11-24 17:33:23.849906');
INSERT INTO "events" VALUES(19,'run_01m879x5f10t0351dbn29hd3vw',3,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5eqq5f8ww8qcjy9hwds','{"workflowId": "wf_01m879x5eqq5f8ww8qcjy9hwds", "runId": "run_01m879x5f10t0351dbn29hd3vw", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.started", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:23.846Z"}}','2026-11-24 17:33:23.850945');
INSERT INTO "events" VALUES(20,'run_01m879x5f10t0351dbn29hd3vw',4,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5eqq5f8ww8qcjy9hwds','{"workflowId": "wf_01m879x5eqq5f8ww8qcjy9hwds", "runId": "run_01m879x5f10t0351dbn29hd3vw", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.ended", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": null, "endedStep": {"index": 0, "id": "step-1", "type": "execute", "status": "failed", "attempt": 1}}','2026-11-24 17:33:23.893590');
INSERT INTO "events" VALUES(21,'run_01m879x5f10t0351dbn29hd3vw',5,'workflow.failed','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5eqq5f8ww8qcjy9hwds','{"workflowId": "wf_01m879x5eqq5f8ww8qcjy9hwds", "runId": "run_01m879x5f10t0351dbn29hd3vw", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.failed", "status": "failed", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": null, "result": {"success": false, "checkpointIds": []}, "error": {"code": "COMMAND_FAILED", "step": "step-1"}}','2026-11-24 17:33:23.930856');
INSERT INTO "events" VALUES(22,'ses_01m879x4ty6yfq2chb0wztq3hb',6,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 2, "runningTasks": 0}}','2026-11-24 17:33:23.932674');
INSERT INTO "events" VALUES(23,'run_01m879x5phmdvgw5x261bxef94',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5n3kanpebcsjn6ksmvj','{"workflowId": "wf_01m879x5n3kanpebcsjn6ksmvj", "runId": "run_01m879x5phmdvgw5x261bxef94", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": null}','2026-11-24 17:33:24.065145');
INSERT INTO "events" VALUES(24,'ses_01m879x4ty6yfq2chb0wztq3hb',7,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 3, "runningTasks": 1}}','2026-11-24 17:33:24.066552');
INSERT INTO "events" VALUES(25,'run_01m879x5phmdvgw5x261bxef94',2,'workflow.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5n3kanpebcsjn6ksmvj','{"workflowId": "wf_01m879x5n3kanpebcsjn6ksmvj", "runId": "run_01m879x5phmdvgw5x261bxef94", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.started", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.196Z"}}','2026-11-24 17:33:24.198412');
INSERT INTO "events" VALUES(26,'run_01m879x5phmdvgw5x261bxef94',3,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5n3kanpebcsjn6ksmvj','{"workflowId": "wf_01m879x5n3kanpebcsjn6ksmvj", "runId": "run_01m879x5phmdvgw5x261bxef94", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.started", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.196Z"}}','2026-11-24 17:33:24.199631');
INSERT INTO "events" VALUES(27,'run_01m879x5wck1wpswqb7192xy0t',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5ntcjfzbf56034ws34z','{"workflowId": "wf_01m879x5ntcjfzbf56034ws34z", "runId": "run_01m879x5wck1wpswqb7192xy0t", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": null}','2026-11-24 17:33:24.239620');
INSERT INTO "events" VALUES(28,'ses_01m879x4ty6yfq2chb0wztq3hb',8,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb',NULL,'{"sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "status": "active", "metrics": {"activeDepartments": 1, "totalTasks": 4, "runningTasks": 2}}','2026-11-24 17:33:24.241074');
INSERT INTO "events" VALUES(29,'run_01m879x5wck1wpswqb7192xy0t',2,'step.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5ntcjfzbf56034ws34z','{"workflowId": "wf_01m879x5ntcjfzbf56034ws34z", "runId": "run_01m879x5wck1wpswqb7192xy0t", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "step.queued", "status": "queued", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "queued", "attempt": 1, "startTime": null}}','2026-11-24 17:33:24.570382');
INSERT INTO "events" VALUES(30,'ses_01m879x682f8fjkxpqa3jx3jgp',1,'session.created','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp',NULL,'{"sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:24.626417');
INSERT INTO "events" VALUES(31,'run_01m879x6aedm46dkcbaa52spvw',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": null}','2026-11-24 17:33:24.689953');
INSERT INTO "events" VALUES(32,'ses_01m879x682f8fjkxpqa3jx3jgp',2,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp',NULL,'{"sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 1, "runningTasks": 1}}','2026-11-24 17:33:24.691213');
INSERT INTO "events" VALUES(33,'run_01m879x6aedm46dkcbaa52spvw',2,'workflow.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "workflow.started", "status": "running", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.735Z"}}','2026-11-24 17:33:24.737707');
INSERT INTO "events" VALUES(34,'run_01m879x6aedm46dkcbaa52spvw',3,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "step.started", "status": "running", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.735Z"}}','2026-11-24 17:33:24.738683');
INSERT INTO "events" VALUES(35,'run_01m879x6aedm46dkcbaa52spvw',4,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "step.ended", "status": "running", "step": 1, "totalSteps": 2, "progress": 50, "currentStep": null, "endedStep": {"index": 0, "id": "step-1", "type": "execute", "status": "completed", "attempt": 1}}','2026-11-24 17:33:24.795168');
INSERT INTO "events" VALUES(36,'run_01m879x6aedm46dkcbaa52spvw',5,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "step.started", "status": "running", "step": 1, "totalSteps": 2, "progress": 50, "currentStep": {"index": 1, "id": "step-2", "type": "verify", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.827Z"}}','2026-11-24 17:33:24.830052');
INSERT INTO "events" VALUES(37,'run_01m879x6aedm46dkcbaa52spvw',6,'workflow.waiting','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x682f8fjkxpqa3jx3jgp','wf_01m879x68zv95drdjgt6b5g83q','{"workflowId": "wf_01m879x68zv95drdjgt6b5g83q", "runId": "run_01m879x6aedm46dkcbaa52spvw", "sessionId": "ses_01m879x682f8fjkxpqa3jx3jgp", "event": "workflow.waiting", "status": "waiting", "step": 1, "totalSteps": 2, "progress": 50, "currentStep": {"index": 1, "id": "step-2", "type": "verify", "status": "waiting", "attempt": 1, "startTime": "2026-11-24T17:33:24.827Z"}}','2026-11-24 17:33:24.857572');
INSERT INTO "events" VALUES(38,'ses_01m879x6hpw3kv9fr847gybtk0',1,'session.created','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0',NULL,'{"sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 0, "runningTasks": 0}}','2026-11-24 17:33:24.920847');
INSERT INTO "events" VALUES(39,'run_01m879x6jskdbxjywzwcfy0etq',1,'workflow.queued','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "workflow.queued", "status": "queued", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": null}','2026-11-24 17:33:24.955208');
INSERT INTO "events" VALUES(40,'ses_01m879x6hpw3kv9fr847gybtk0',2,'session.metrics','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0',NULL,'{"sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "status": "active", "metrics": {"activeDepartments": 0, "totalTasks": 1, "runningTasks": 1}}','2026-11-24 17:33:24.986066');
INSERT INTO "events" VALUES(41,'run_01m879x6jskdbxjywzwcfy0etq',2,'workflow.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "workflow.started", "status": "running", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:25.118Z"}}','2026-11-24 17:33:25.121506');
INSERT INTO "events" VALUES(42,'run_01m879x6jskdbxjywzwcfy0etq',3,'step.started','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "step.started", "status": "running", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:25.118Z"}}','2026-11-24 17:33:25.122827');
INSERT INTO "events" VALUES(43,'run_01m879x6jskdbxjywzwcfy0etq',4,'workflow.progress','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "workflow.progress", "status": "running", "step": 0, "totalSteps": 2, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:25.118Z"}, "signal": {"source": "agent", "percent": 10.0, "number": 1}}','2026-11-24 17:33:25.253557');
INSERT INTO "events" VALUES(44,'run_01m879x5phmdvgw5x261bxef94',4,'workflow.progress','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x4ty6yfq2chb0wztq3hb','wf_01m879x5n3kanpebcsjn6ksmvj','{"workflowId": "wf_01m879x5n3kanpebcsjn6ksmvj", "runId": "run_01m879x5phmdvgw5x261bxef94", "sessionId": "ses_01m879x4ty6yfq2chb0wztq3hb", "event": "workflow.progress", "status": "running", "step": 0, "totalSteps": 1, "progress": 0, "currentStep": {"index": 0, "id": "step-1", "type": "execute", "status": "running", "attempt": 1, "startTime": "2026-11-24T17:33:24.196Z"}, "signal": {"source": "step", "step": 0, "elapsedMs": 994, "outputBytes": 0, "number": 1}}','2026-11-24 17:33:25.264731');
INSERT INTO "events" VALUES(45,'run_01m879x6jskdbxjywzwcfy0etq',5,'step.ended','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "step.ended", "status": "running", "step": 1, "totalSteps": 2, "progress": 50, "currentStep": null, "endedStep": {"index": 0, "id": "step-1", "type": "execute", "status": "completed", "attempt": 1}}','2026-11-24 17:33:25.271265');
INSERT INTO "events" VALUES(46,'run_01m879x6jskdbxjywzwcfy0etq',6,'workflow.paused','usr_01m879x10z4rmyw561pjty3jzx','ses_01m879x6hpw3kv9fr847gybtk0','wf_01m879x6j14h26dk1y4fnpxnwh','{"workflowId": "wf_01m879x6j14h26dk1y4fnpxnwh", "runId": "run_01m879x6jskdbxjywzwcfy0etq", "sessionId": "ses_01m879x6hpw3kv9fr847gybtk0", "event": "workflow.paused", "status": "paused", "step": 1, "totalSteps": 2, "progress": 50, "currentStep": null}','2026-11-24 17:33:25.297871');
CREATE TABLE hosts (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	places INTEGER NOT NULL, 
	memory_mib INTEGER NOT NULL, 
	draining BOOLEAN NOT NULL, 
	lease_until DATETIME NOT NULL, 
	epoch INTEGER NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (id)
);
INSERT INTO "hosts" VALUES('2026-11-24 17:33:20.618427','2026-11-24 17:33:20.618527','scripted',64,131072,0,'2026-11-24 17:33:34.923853',1);
CREATE TABLE idempotency (
	id VARCHAR NOT NULL, 
	principal_id VARCHAR NOT NULL, 
	route VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	made VARCHAR, 
	lease_until DATETIME, 
	status INTEGER, 
	headers JSON NOT NULL, 
	body BLOB, 
	expires_at DATETIME NOT NULL, 
	CONSTRAINT pk_idempotency PRIMARY KEY (id), 
	CONSTRAINT uq_idempotency_principal_id_route_key UNIQUE (principal_id, route, "key")
);
INSERT INTO "idempotency" VALUES('idm_01m879x494nytnmj43hze8jzdt','usr_01m879x10z4rmyw561pjty3jzx','users.create','recorded','3c3344c2e6c4b4e315f4ed0e63bf518a0bf969f71e1d1b47e0c94a9dbd8a12a1','usr_01m879x4977azhkcwsgphtms0d',NULL,201,'{"Location": "/v1/users/usr_01m879x4977azhkcwsgphtms0d"}',X'7B2273756363657373223A747275652C2264617461223A7B226964223A227573725F30316D3837397834393737617A686B637773677068746D733064222C22757365726E616D65223A2256657261222C22726F6C65223A22766965776572222C2264697361626C6564223A66616C73652C22637265617465644174223A22323032362D31312D32345431373A33333A32322E3539395A222C22757064617465644174223A22323032362D31312D32345431373A33333A32322E3539395A227D2C226D65746164617461223A7B2274696D657374616D70223A22323032362D31312D32345431373A33333A32322E3630345A222C22726571756573744964223A227265715F30316D38373978336B70643731746A7664797765713974787A7A222C2276657273696F6E223A22312E302E30227D7D','2026-11-25 17:33:22.604864');
INSERT INTO "idempotency" VALUES('idm_01m879x4xtz3hn2rb8zgph3brv','usr_01m879x10z4rmyw561pjty3jzx','archives.create','recorded','d4800339d4261b1974f134088bca01a2e1fa7aeef9a7eeaa6c64e3b565765c62','arc_01m879x4xamwxe2pqhf5g2pf4w',NULL,201,'{"Location": "/v1/archives/arc_01m879x4xamwxe2pqhf5g2pf4w"}',X'7B2273756363657373223A747275652C2264617461223A7B226964223A226172635F30316D383739783478616D777865327071686635673270663477222C226F776E65724964223A227573725F30316D3837397831307A34726D7977353631706A7479336A7A78222C226E616D65223A22736F7572636573222C2266696C65436F756E74223A312C22746F74616C4279746573223A322C22637265617465644174223A22323032362D31312D32345431373A33333A32332E3235365A227D2C226D65746164617461223A7B2274696D657374616D70223A22323032362D31312D32345431373A33333A32332E3235395A222C22726571756573744964223A227265715F30316D38373978347831633372706D6A63336E613931367A616B222C2276657273696F6E223A22312E302E30227D7D','2026-11-25 17:33:23.259564');
CREATE TABLE logins (
	id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	revoked_at DATETIME, 
	CONSTRAINT pk_logins PRIMARY KEY (id), 
	CONSTRAINT fk_logins_user_id_users FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "logins" VALUES('lgn_01m879x2a7g4kfsh004xdep9jc','usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:20.580817',NULL);
INSERT INTO "logins" VALUES('lgn_01m879x4sy1pn76y3exm6x3fq5','usr_01m879x4977azhkcwsgphtms0d','2026-11-24 17:33:23.131889',NULL);
CREATE TABLE outputs (
	id INTEGER NOT NULL, 
	run_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	stream VARCHAR NOT NULL, 
	"offset" INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	hash VARCHAR NOT NULL, 
	CONSTRAINT pk_outputs PRIMARY KEY (id), 
	CONSTRAINT uq_outputs_run_id_step_attempt_stream_offset UNIQUE (run_id, step, attempt, stream, "offset")
);
INSERT INTO "outputs" VALUES(1,'run_01m879x4zw97jth8b2a1w0rm0r',0,1,'stdout',0,4,'83a4652c785a15ae6ece8b56f6191092984ffc6efac8d6b828646d9df79a0e6e');
INSERT INTO "outputs" VALUES(2,'run_01m879x4zw97jth8b2a1w0rm0r',0,1,'stderr',0,3,'564739ea8fa5926d4fa5c9734fed462061960a22e6b8d5c06e94969d97891bf2');
INSERT INTO "outputs" VALUES(3,'run_01m879x6aedm46dkcbaa52spvw',0,1,'stdout',0,2,'73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac');
CREATE TABLE refresh_tokens (
	hash VARCHAR NOT NULL, 
	login_id VARCHAR NOT NULL, 
	expires_at DATETIME NOT NULL, 
	superseded_at DATETIME, 
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (hash), 
	CONSTRAINT fk_refresh_tokens_login_id_logins FOREIGN KEY(login_id) REFERENCES logins (id)
);
INSERT INTO "refresh_tokens" VALUES('351ebc56014f2c75d7aedbd8380a4ce45b708197ddaf0da31cce67b0b4613f54','lgn_01m879x2a7g4kfsh004xdep9jc','2026-12-24 17:33:20.580817',NULL);
INSERT INTO "refresh_tokens" VALUES('b9ef3861933a71b214f4f3b8a9601b498e0fecb26657111e302467e80f63b945','lgn_01m879x4sy1pn76y3exm6x3fq5','2026-12-24 17:33:23.131889','2026-11-24 17:33:23.151643');
INSERT INTO "refresh_tokens" VALUES('cb8154ce8ace74c6e91d7aa6e0b5d74d248ba9b822d4b4d264731ecc8e5a6501','lgn_01m879x4sy1pn76y3exm6x3fq5','2026-12-24 17:33:23.151643',NULL);
CREATE TABLE runs (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	workflow_id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	session_id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	environment JSON NOT NULL, 
	context JSON NOT NULL, 
	priority INTEGER NOT NULL, 
	total_steps INTEGER NOT NULL, 
	result JSON, 
	error JSON, 
	derived_from JSON, 
	image VARCHAR, 
	resolved_image VARCHAR, 
	host_id VARCHAR, 
	sandbox_epoch INTEGER NOT NULL, 
	memory_mib INTEGER, 
	workspace_ready BOOLEAN NOT NULL, 
	workspace_from VARCHAR, 
	temporal_run_id VARCHAR, 
	superseded JSON NOT NULL, 
	pause_wanted BOOLEAN NOT NULL, 
	cancel_wanted BOOLEAN NOT NULL, 
	closed_as VARCHAR, 
	signal_count INTEGER NOT NULL, 
	progress_told INTEGER NOT NULL, 
	started_at DATETIME, 
	completed_at DATETIME, 
	CONSTRAINT pk_runs PRIMARY KEY (id), 
	CONSTRAINT fk_runs_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES workflows (id)
);
INSERT INTO "runs" VALUES('2026-11-24 17:33:23.324970','2026-11-24 17:33:23.732229','run_01m879x4zw97jth8b2a1w0rm0r','wf_01m879x4y95abvaff75vc9h92h',1,'ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','completed','{}','{}',3,3,'{"success": true, "output": "the output contains \"h\u00e9\"", "checkpointIds": ["ckp_01m879x59e8gzv3zhgfa58x7j3"]}',NULL,NULL,'scripted-image','scripted-image@scripted','scripted',0,2048,1,NULL,'01a20e9e-940f-7dfa-9ab4-6cc44ad61b95','[]',0,0,NULL,0,0,'2026-11-24 17:33:23.389288','2026-11-24 17:33:23.732217');
INSERT INTO "runs" VALUES('2026-11-24 17:33:23.810009','2026-11-24 17:33:23.929219','run_01m879x5f10t0351dbn29hd3vw','wf_01m879x5eqq5f8ww8qcjy9hwds',1,'ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','failed','{}','{}',3,1,'{"success": false, "output": "", "checkpointIds": []}','{"code": "COMMAND_FAILED", "message": "the command ended with exit code 3: it wrote nothing", "step": "step-1"}',NULL,'scripted-image','scripted-image@scripted','scripted',0,2048,1,NULL,'01a20e9e-95eb-7eaf-9917-c4d17bb356d1','[]',0,0,NULL,0,0,'2026-11-24 17:33:23.847056','2026-11-24 17:33:23.929210');
INSERT INTO "runs" VALUES('2026-11-24 17:33:24.049914','2026-11-24 17:33:24.220240','run_01m879x5phmdvgw5x261bxef94','wf_01m879x5n3kanpebcsjn6ksmvj',1,'ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','running','{}','{}',3,1,NULL,NULL,NULL,'scripted-image','scripted-image@scripted','scripted',0,2048,1,NULL,'01a20e9e-96f6-7c65-bec9-0fef393c6954','[]',0,0,NULL,0,1,'2026-11-24 17:33:24.196725',NULL);
INSERT INTO "runs" VALUES('2026-11-24 17:33:24.236438','2026-11-24 17:33:24.236449','run_01m879x5wck1wpswqb7192xy0t','wf_01m879x5ntcjfzbf56034ws34z',1,'ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','queued','{"A": "1"}','{"reviewer": "ada"}',3,2,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,0,NULL,'01a20e9e-9796-7545-b795-3d9e8eabefe9','[]',0,0,NULL,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('2026-11-24 17:33:24.686393','2026-11-24 17:33:24.854576','run_01m879x6aedm46dkcbaa52spvw','wf_01m879x68zv95drdjgt6b5g83q',1,'ses_01m879x682f8fjkxpqa3jx3jgp','usr_01m879x10z4rmyw561pjty3jzx','waiting','{}','{}',3,2,NULL,NULL,NULL,'scripted-image','scripted-image@scripted','scripted',0,2048,1,NULL,'01a20e9e-995a-793b-b9e9-061c1f94982e','[]',0,0,NULL,0,0,'2026-11-24 17:33:24.735483',NULL);
INSERT INTO "runs" VALUES('2026-11-24 17:33:24.953306','2026-11-24 17:33:25.295475','run_01m879x6jskdbxjywzwcfy0etq','wf_01m879x6j14h26dk1y4fnpxnwh',1,'ses_01m879x6hpw3kv9fr847gybtk0','usr_01m879x10z4rmyw561pjty3jzx','paused','{}','{}',3,2,NULL,NULL,NULL,'scripted-image','scripted-image@scripted','scripted',0,2048,1,NULL,'01a20e9e-9a95-7a41-bc7c-b72d7feff346','[]',1,0,NULL,2,1,'2026-11-24 17:33:25.118466',NULL);
CREATE TABLE sessions (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	description VARCHAR, 
	status VARCHAR NOT NULL, 
	config JSON NOT NULL, 
	expires_at DATETIME, 
	deleted_at DATETIME, 
	CONSTRAINT pk_sessions PRIMARY KEY (id)
);
INSERT INTO "sessions" VALUES('2026-11-24 17:33:23.166293','2026-11-24 17:33:23.166303','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','director','A session','it''s "quoted";
and é','active','{"timeout": 1000000000}','2026-12-06 07:20:04.234310',NULL);
INSERT INTO "sessions" VALUES('2026-11-24 17:33:23.190293','2026-11-24 17:33:23.227700','ses_01m879x4vpps426dak8vvgw5qq','usr_01m879x10z4rmyw561pjty3jzx','director','gone',NULL,'active','{}',NULL,'2026-11-24 17:33:23.227681');
INSERT INTO "sessions" VALUES('2026-11-24 17:33:24.615583','2026-11-24 17:33:24.615612','ses_01m879x682f8fjkxpqa3jx3jgp','usr_01m879x10z4rmyw561pjty3jzx','director','A session',NULL,'active','{}',NULL,NULL);
INSERT INTO "sessions" VALUES('2026-11-24 17:33:24.918889','2026-11-24 17:33:24.918899','ses_01m879x6hpw3kv9fr847gybtk0','usr_01m879x10z4rmyw561pjty3jzx','director','A session',NULL,'active','{}',NULL,NULL);
CREATE TABLE steps (
	run_id VARCHAR NOT NULL, 
	"index" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	repeats INTEGER NOT NULL, 
	department_id VARCHAR, 
	domain VARCHAR, 
	requires JSON NOT NULL, 
	temporal_run_id VARCHAR, 
	activity_attempt BIGINT NOT NULL, 
	result JSON, 
	error JSON, 
	approval JSON, 
	started_at DATETIME, 
	ended_at DATETIME, 
	CONSTRAINT pk_steps PRIMARY KEY (run_id, "index"), 
	CONSTRAINT fk_steps_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "steps" VALUES('run_01m879x4zw97jth8b2a1w0rm0r',0,'step-1','execute','completed',1,0,NULL,NULL,'[]','01a20e9e-940f-7dfa-9ab4-6cc44ad61b95',100001,'{"exitCode": 0, "durationMs": 0, "stdout": "h\u00e9\n", "stderr": "no\n", "stdoutBytes": 4, "stderrBytes": 3, "truncated": false, "oomKilled": false, "attempt": 1, "repeats": 0}',NULL,NULL,'2026-11-24 17:33:23.388792','2026-11-24 17:33:23.532489');
INSERT INTO "steps" VALUES('run_01m879x4zw97jth8b2a1w0rm0r',1,'step-2','verify','completed',1,0,NULL,NULL,'[]','01a20e9e-940f-7dfa-9ab4-6cc44ad61b95',200001,'{"passed": true, "message": "the output contains \"h\u00e9\"", "judged": true, "evidence": {"excerpt": "h\u00e9"}, "children": [], "attempt": 1}',NULL,NULL,'2026-11-24 17:33:23.574620','2026-11-24 17:33:23.590251');
INSERT INTO "steps" VALUES('run_01m879x4zw97jth8b2a1w0rm0r',2,'step-3','checkpoint','completed',1,0,NULL,NULL,'[]','01a20e9e-940f-7dfa-9ab4-6cc44ad61b95',300001,'{"checkpointId": "ckp_01m879x59e8gzv3zhgfa58x7j3", "name": "kept", "files": 2, "bytes": 4, "skipped": 0, "attempt": 1}',NULL,NULL,'2026-11-24 17:33:23.623379','2026-11-24 17:33:23.694313');
INSERT INTO "steps" VALUES('run_01m879x5f10t0351dbn29hd3vw',0,'step-1','execute','failed',1,0,NULL,NULL,'[]','01a20e9e-95eb-7eaf-9917-c4d17bb356d1',100001,'{"exitCode": 3, "durationMs": 0, "stdout": "", "stderr": "", "stdoutBytes": 0, "stderrBytes": 0, "truncated": false, "oomKilled": false, "attempt": 1, "repeats": 0}','{"code": "COMMAND_FAILED", "message": "the command ended with exit code 3: it wrote nothing"}',NULL,'2026-11-24 17:33:23.846863','2026-11-24 17:33:23.891058');
INSERT INTO "steps" VALUES('run_01m879x5phmdvgw5x261bxef94',0,'step-1','execute','running',1,0,'dep_01m879x4vfr7kvmss89n0hgrtb',NULL,'[]','01a20e9e-96f6-7c65-bec9-0fef393c6954',100001,NULL,NULL,NULL,'2026-11-24 17:33:24.196438',NULL);
INSERT INTO "steps" VALUES('run_01m879x5wck1wpswqb7192xy0t',0,'step-1','execute','queued',1,0,NULL,'frontend','[]','01a20e9e-9796-7545-b795-3d9e8eabefe9',100001,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "steps" VALUES('run_01m879x5wck1wpswqb7192xy0t',1,'step-2','execute','pending',0,0,NULL,'frontend','[]',NULL,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "steps" VALUES('run_01m879x6aedm46dkcbaa52spvw',0,'step-1','execute','completed',1,0,NULL,NULL,'[]','01a20e9e-995a-793b-b9e9-061c1f94982e',100001,'{"exitCode": 0, "durationMs": 0, "stdout": "x\n", "stderr": "", "stdoutBytes": 2, "stderrBytes": 0, "truncated": false, "oomKilled": false, "attempt": 1, "repeats": 0}',NULL,NULL,'2026-11-24 17:33:24.735282','2026-11-24 17:33:24.789381');
INSERT INTO "steps" VALUES('run_01m879x6aedm46dkcbaa52spvw',1,'step-2','verify','waiting',1,0,NULL,NULL,'[]','01a20e9e-995a-793b-b9e9-061c1f94982e',200001,NULL,NULL,NULL,'2026-11-24 17:33:24.827338',NULL);
INSERT INTO "steps" VALUES('run_01m879x6jskdbxjywzwcfy0etq',0,'step-1','execute','completed',1,0,NULL,NULL,'[]','01a20e9e-9a95-7a41-bc7c-b72d7feff346',100001,'{"exitCode": 0, "durationMs": 117, "stdout": "", "stderr": "", "stdoutBytes": 0, "stderrBytes": 0, "truncated": false, "oomKilled": false, "attempt": 1, "repeats": 0}',NULL,NULL,'2026-11-24 17:33:25.118263','2026-11-24 17:33:25.270075');
INSERT INTO "steps" VALUES('run_01m879x6jskdbxjywzwcfy0etq',1,'step-2','execute','pending',0,0,NULL,NULL,'[]',NULL,0,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE tickets (
	pool VARCHAR NOT NULL, 
	run_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	priority INTEGER NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	enqueued_at DATETIME NOT NULL, 
	granted_at DATETIME, 
	CONSTRAINT pk_tickets PRIMARY KEY (pool, run_id, step), 
	CONSTRAINT fk_tickets_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "tickets" VALUES('dep_01m879x4vfr7kvmss89n0hgrtb','run_01m879x5phmdvgw5x261bxef94',0,'held',3,'usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:24.049914','2026-11-24 17:33:24.192659');
INSERT INTO "tickets" VALUES('places','run_01m879x5phmdvgw5x261bxef94',-1,'held',3,'usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:24.049914','2026-11-24 17:33:24.196119');
INSERT INTO "tickets" VALUES('dep_01m879x4vfr7kvmss89n0hgrtb','run_01m879x5wck1wpswqb7192xy0t',0,'waiting',3,'usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:24.236438',NULL);
INSERT INTO "tickets" VALUES('places','run_01m879x6aedm46dkcbaa52spvw',-1,'held',3,'usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:24.686393','2026-11-24 17:33:24.734992');
INSERT INTO "tickets" VALUES('places','run_01m879x6jskdbxjywzwcfy0etq',-1,'held',3,'usr_01m879x10z4rmyw561pjty3jzx','2026-11-24 17:33:24.953306','2026-11-24 17:33:25.117939');
CREATE TABLE users (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	username VARCHAR NOT NULL, 
	password_hash VARCHAR NOT NULL, 
	role VARCHAR NOT NULL, 
	disabled BOOLEAN NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (id)
);
INSERT INTO "users" VALUES('2026-11-24 17:33:19.264071','2026-11-24 17:33:19.264088','usr_01m879x10z4rmyw561pjty3jzx','admin','$argon2id$v=19$m=65536,t=3,p=4$QxjQ9MOT/LsRjy9QgdJyyw$qHOATARqtnn6Vh/tMuOHjKY241etRFgGZpc8HA5lITE','admin',0);
INSERT INTO "users" VALUES('2026-11-24 17:33:22.599519','2026-11-24 17:33:22.599530','usr_01m879x4977azhkcwsgphtms0d','Vera','$argon2id$v=19$m=65536,t=3,p=4$dpCE3vQ4gSqCXsg+Vk264w$ppMxe0NuWnlZQBVi4nb4F9DE55CDjihF7AuCrY1iiDM','viewer',0);
CREATE TABLE workflows (
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	id VARCHAR NOT NULL, 
	session_id VARCHAR NOT NULL, 
	owner_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	description VARCHAR, 
	version INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	latest_run_id VARCHAR, 
	deleted_at DATETIME, 
	CONSTRAINT pk_workflows PRIMARY KEY (id), 
	CONSTRAINT fk_workflows_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:23.273148','2026-11-24 17:33:23.786480','wf_01m879x4y95abvaff75vc9h92h','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','renamed',NULL,2,'completed','run_01m879x4zw97jth8b2a1w0rm0r',NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:23.799135','2026-11-24 17:33:23.930054','wf_01m879x5eqq5f8ww8qcjy9hwds','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','A workflow',NULL,1,'failed','run_01m879x5f10t0351dbn29hd3vw',NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:23.968064','2026-11-24 17:33:23.968072','wf_01m879x5kz58448yr3pp2vf72w','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','not started',NULL,1,'created',NULL,NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:24.003706','2026-11-24 17:33:24.197139','wf_01m879x5n3kanpebcsjn6ksmvj','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','A workflow',NULL,1,'running','run_01m879x5phmdvgw5x261bxef94',NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:24.026868','2026-11-24 17:33:24.237362','wf_01m879x5ntcjfzbf56034ws34z','ses_01m879x4ty6yfq2chb0wztq3hb','usr_01m879x10z4rmyw561pjty3jzx','A workflow',NULL,1,'queued','run_01m879x5wck1wpswqb7192xy0t',NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:24.639225','2026-11-24 17:33:24.855129','wf_01m879x68zv95drdjgt6b5g83q','ses_01m879x682f8fjkxpqa3jx3jgp','usr_01m879x10z4rmyw561pjty3jzx','A workflow',NULL,1,'waiting','run_01m879x6aedm46dkcbaa52spvw',NULL);
INSERT INTO "workflows" VALUES('2026-11-24 17:33:24.929241','2026-11-24 17:33:25.296348','wf_01m879x6j14h26dk1y4fnpxnwh','ses_01m879x6hpw3kv9fr847gybtk0','usr_01m879x10z4rmyw561pjty3jzx','A workflow',NULL,1,'paused','run_01m879x6jskdbxjywzwcfy0etq',NULL);
CREATE INDEX ix_sessions_owner_id ON sessions (owner_id);
CREATE INDEX ix_archives_owner_id ON archives (owner_id);
CREATE INDEX ix_idempotency_expires_at ON idempotency (expires_at);
CREATE UNIQUE INDEX uq_users_username ON users (lower(username));
CREATE INDEX ix_departments_session_id ON departments (session_id);
CREATE INDEX ix_departments_owner_id ON departments (owner_id);
CREATE INDEX ix_workflows_status ON workflows (status);
CREATE INDEX ix_workflows_owner_status ON workflows (owner_id, status, id);
CREATE INDEX ix_workflows_session_id ON workflows (session_id);
CREATE INDEX ix_checkpoints_owner_id ON checkpoints (owner_id);
CREATE INDEX ix_checkpoints_session_id ON checkpoints (session_id);
CREATE INDEX ix_logins_user_id ON logins (user_id);
CREATE INDEX ix_runs_workflow_id ON runs (workflow_id);
CREATE INDEX ix_runs_session_status ON runs (session_id, status);
CREATE INDEX ix_runs_host_status ON runs (host_id, status);
CREATE INDEX ix_runs_status ON runs (status);
CREATE INDEX ix_refresh_tokens_login_id ON refresh_tokens (login_id);
CREATE INDEX ix_refresh_tokens_expires_at ON refresh_tokens (expires_at);
CREATE INDEX ix_steps_department_status ON steps (department_id, status);
CREATE INDEX ix_tickets_line ON tickets (pool, state, priority, enqueued_at, run_id, step, owner_id);
CREATE INDEX ix_tickets_run_step ON tickets (run_id, step);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',46);
COMMIT;
