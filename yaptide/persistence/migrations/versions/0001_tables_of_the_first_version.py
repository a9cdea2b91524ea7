"""Tables of the first version.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

STATES = ("UNKNOWN", "PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED", "FAILED", "CANCELED")
OPEN = sa.text("job_state NOT IN ('CANCELED', 'COMPLETED', 'FAILED')")
WAITING = sa.text("task_state IN ('PENDING', 'RUNNING')")
TABLES = (
    "Page",
    "CeleryTask",
    "BatchTask",
    "Task",
    "StateHistory",
    "Logfiles",
    "Input",
    "Estimator",
    "CelerySimulation",
    "BatchSimulation",
    "YaptideUser",
    "Simulation",
    "Session",
    "KeycloakUser",
    "User",
    "Cluster",
)
PAYLOADS = ("Input", "Estimator", "Page", "Logfiles")


def one_of(values: tuple[str, ...], name: str) -> sa.Enum:
    """Return a text type limited to `values` by a CHECK constraint."""
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def payload() -> tuple[sa.Column[Any], ...]:
    """Return the columns of a stored payload."""
    return (
        sa.Column("compressed_data", sa.LargeBinary(), nullable=False),
        sa.Column("content_size", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
    )


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "Cluster",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster_name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("port", sa.Integer(), server_default="22", nullable=False),
        sa.Column("host_key", sa.Text(), nullable=True),
        sa.Column("scratch_folder", sa.String(), nullable=True),
        sa.CheckConstraint("cluster_name <> ''", name=op.f("ck_Cluster_cluster_name_not_empty")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_Cluster_port_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Cluster")),
        sa.UniqueConstraint("cluster_name", name=op.f("uq_Cluster_cluster_name")),
    )
    op.create_table(
        "User",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("auth_provider", one_of(("YaptideUser", "KeycloakUser"), "auth_provider"), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("username <> ''", name=op.f("ck_User_username_not_empty")),
        sa.CheckConstraint("quota_bytes >= 0", name=op.f("ck_User_quota_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_User")),
        sa.UniqueConstraint("username", "auth_provider", name=op.f("uq_User_username_auth_provider")),
    )
    op.create_table(
        "KeycloakUser",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cert", sa.Text(), nullable=True),
        sa.Column("private_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["User.id"], name=op.f("fk_KeycloakUser_id_User"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_KeycloakUser")),
    )
    op.create_table(
        "Session",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["User.id"], name=op.f("fk_Session_user_id_User"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Session")),
    )
    op.create_index(op.f("ix_Session_expires"), "Session", ["expires"])
    op.create_index(op.f("ix_Session_user_id"), "Session", ["user_id"])
    op.create_table(
        "Simulation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("platform", one_of(("DIRECT", "BATCH"), "platform"), nullable=False),
        sa.Column("input_type", one_of(("EDITOR", "FILES"), "input_type"), nullable=False),
        sa.Column("sim_type", sa.String(), nullable=False),
        sa.Column("job_state", one_of(STATES, "job_state"), nullable=False),
        sa.Column("update_key_hash", sa.String(length=64), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("simulator_version", sa.String(), nullable=True),
        sa.Column("simulator_digest", sa.String(length=64), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("heartbeat_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("end_time >= start_time", name=op.f("ck_Simulation_end_after_start")),
        sa.CheckConstraint("stored_bytes >= 0", name=op.f("ck_Simulation_stored_not_negative")),
        sa.ForeignKeyConstraint(["user_id"], ["User.id"], name=op.f("fk_Simulation_user_id_User"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Simulation")),
        sa.UniqueConstraint("job_id", name=op.f("uq_Simulation_job_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_Simulation_open"), "Simulation", ["job_state", "id"], postgresql_where=OPEN, sqlite_where=OPEN
    )
    op.create_index(op.f("ix_Simulation_user_id_end_time_id"), "Simulation", ["user_id", "end_time", "id"])
    op.create_index(op.f("ix_Simulation_user_id_stored_bytes"), "Simulation", ["user_id", "stored_bytes"])
    op.create_index(op.f("ix_Simulation_user_id_start_time_id"), "Simulation", ["user_id", "start_time", "id"])
    op.create_table(
        "YaptideUser",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["User.id"], name=op.f("fk_YaptideUser_id_User"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_YaptideUser")),
    )
    op.create_table(
        "BatchSimulation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.Integer(), nullable=False),
        sa.Column("job_dir", sa.String(), nullable=True),
        sa.Column("array_id", sa.Integer(), nullable=True),
        sa.Column("collect_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["Cluster.id"], name=op.f("fk_BatchSimulation_cluster_id_Cluster"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["id"], ["Simulation.id"], name=op.f("fk_BatchSimulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_BatchSimulation")),
    )
    op.create_index(op.f("ix_BatchSimulation_cluster_id"), "BatchSimulation", ["cluster_id"])
    op.create_table(
        "CelerySimulation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("merge_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["id"], ["Simulation.id"], name=op.f("fk_CelerySimulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_CelerySimulation")),
    )
    op.create_table(
        "Estimator",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("file_name", sa.String(), nullable=False),
        *payload(),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["Simulation.id"], name=op.f("fk_Estimator_simulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Estimator")),
        sa.UniqueConstraint("simulation_id", "name", name=op.f("uq_Estimator_simulation_id_name")),
    )
    op.create_table(
        "Input",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        *payload(),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["Simulation.id"], name=op.f("fk_Input_simulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Input")),
        sa.UniqueConstraint("simulation_id", name=op.f("uq_Input_simulation_id")),
    )
    op.create_table(
        "Logfiles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        *payload(),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["Simulation.id"], name=op.f("fk_Logfiles_simulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Logfiles")),
        sa.UniqueConstraint("simulation_id", "content_sha256", name=op.f("uq_Logfiles_simulation_id_content_sha256")),
    )
    op.create_table(
        "StateHistory",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("from_state", one_of(STATES, "from_state"), nullable=True),
        sa.Column("to_state", one_of(STATES, "to_state"), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"],
            ["Simulation.id"],
            name=op.f("fk_StateHistory_simulation_id_Simulation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_StateHistory")),
    )
    op.create_index(op.f("ix_StateHistory_simulation_id_id"), "StateHistory", ["simulation_id", "id"])
    op.create_table(
        "Task",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("requested_primaries", sa.BigInteger(), nullable=False),
        sa.Column("simulated_primaries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("task_state", sa.String(32), nullable=False),
        sa.Column("estimated_time", sa.Integer(), nullable=True),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("platform", one_of(("DIRECT", "BATCH"), "platform"), nullable=False),
        sa.Column("last_update_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("heartbeat_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "task_state IN ('CANCELED', 'COMPLETED', 'FAILED', 'PENDING', 'RUNNING', 'UNKNOWN')",
            name=op.f("ck_Task_task_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_Task_attempts_not_negative")),
        sa.CheckConstraint("end_time >= start_time", name=op.f("ck_Task_end_after_start")),
        sa.CheckConstraint("estimated_time >= 0", name=op.f("ck_Task_estimated_not_negative")),
        sa.CheckConstraint("requested_primaries >= 0", name=op.f("ck_Task_requested_not_negative")),
        sa.CheckConstraint("simulated_primaries >= 0", name=op.f("ck_Task_simulated_not_negative")),
        sa.CheckConstraint("task_id >= 0", name=op.f("ck_Task_task_id_not_negative")),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["Simulation.id"], name=op.f("fk_Task_simulation_id_Simulation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Task")),
        sa.UniqueConstraint("simulation_id", "task_id", name=op.f("uq_Task_simulation_id_task_id")),
    )
    op.create_index(
        op.f("ix_Task_waiting"), "Task", ["task_state", "id"], postgresql_where=WAITING, sqlite_where=WAITING
    )
    op.create_table(
        "BatchTask",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["Task.id"], name=op.f("fk_BatchTask_id_Task"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_BatchTask")),
    )
    op.create_table(
        "CeleryTask",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("celery_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["Task.id"], name=op.f("fk_CeleryTask_id_Task"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_CeleryTask")),
    )
    op.create_table(
        "Page",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("estimator_id", sa.Integer(), nullable=False),
        sa.Column("page_number", sa.Integer(), nullable=False),
        sa.Column("page_name", sa.String(), nullable=False),
        sa.Column("page_dimension", sa.Integer(), nullable=False),
        *payload(),
        sa.CheckConstraint("page_dimension >= 0", name=op.f("ck_Page_page_dimension_not_negative")),
        sa.CheckConstraint("page_number >= 0", name=op.f("ck_Page_page_number_not_negative")),
        sa.ForeignKeyConstraint(
            ["estimator_id"], ["Estimator.id"], name=op.f("fk_Page_estimator_id_Estimator"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Page")),
        sa.UniqueConstraint("estimator_id", "page_number", name=op.f("uq_Page_estimator_id_page_number")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Payloads are already compressed: PostgreSQL must not try again.
        for table in PAYLOADS:
            op.execute(f'ALTER TABLE "{table}" ALTER COLUMN compressed_data SET STORAGE EXTERNAL')


def downgrade() -> None:
    """Drop all tables with everything in them."""
    for table in TABLES:
        op.drop_table(table)
