"""What dashboards and rules may ask of others: metrics of exporters and of Prometheus itself.

Those of the platform stand in docs/reference/metrics.md.
"""

from __future__ import annotations

PROMETHEUS = {"up", "ALERTS"}
BLACKBOX_EXPORTER = {"probe_success", "probe_ssl_earliest_cert_expiry"}
POSTGRES_EXPORTER = {"pg_up", "pg_stat_activity_count", "pg_settings_max_connections"}
REDIS_EXPORTER = {
    "redis_blocked_clients",
    "redis_commands_duration_seconds_total",
    "redis_commands_total",
    "redis_connected_clients",
    "redis_cpu_sys_seconds_total",
    "redis_cpu_user_seconds_total",
    "redis_db_keys",
    "redis_db_keys_expiring",
    "redis_evicted_keys_total",
    "redis_expired_keys_total",
    "redis_keyspace_hits_total",
    "redis_keyspace_misses_total",
    "redis_mem_fragmentation_ratio",
    "redis_memory_max_bytes",
    "redis_memory_used_bytes",
    "redis_memory_used_rss_bytes",
    "redis_net_input_bytes_total",
    "redis_net_output_bytes_total",
    "redis_rdb_changes_since_last_save",
    "redis_rejected_connections_total",
    "redis_slowlog_length",
    "redis_up",
    "redis_uptime_in_seconds",
}
ALL = PROMETHEUS | BLACKBOX_EXPORTER | POSTGRES_EXPORTER | REDIS_EXPORTER
