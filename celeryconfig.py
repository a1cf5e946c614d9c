"""How Celery is set up here; static, nothing of the environment. A reason for each line."""

# Only JSON: a message can never run code.
accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
# The ledger is the truth; a result backend would only cost.
task_ignore_result = True
task_store_errors_even_if_ignored = False
# A message is gone only when its work is; the ledger covers what the broker loses all the same.
task_acks_late = True
# On, a message that kills its worker comes back for ever (celery#9082), with an old fed number.
task_reject_on_worker_lost = False
# Work in progress stays in the queue, where every worker can reach it.
worker_prefetch_multiplier = 1
# On, tasks were run twice after a lost connection.
worker_cancel_long_running_tasks_on_connection_loss = False
# A broken message is refused and does not end the worker.
worker_consumer = "workers.consumer:Consumer"
# Redis may be away for longer than any number of tries.
broker_connection_max_retries = None
broker_connection_retry_on_startup = True
# A slow start of a child after a crash must not be taken for a dead one.
worker_proc_alive_timeout = 60.0
# Log lines are ours (structlog).
worker_hijack_root_logger = False
worker_redirect_stdouts = False
# Flower shows tasks by their arguments.
worker_send_task_events = True
# Feeders send to queues by name; workers declare the same ones.
task_create_missing_queues = True
task_default_queue = "encode"
task_default_priority = 6
broker_transport_options = {
    # A backstop only: the ledger recovers in seconds, and kombu restores by clients' clocks.
    "visibility_timeout": 86_400,
    "unacked_mutex_expire": 30,
    # 'priority' and 'sorted' let queues starve.
    "queue_order_strategy": "round_robin",
    # 0 is served first; sweeps send 6.
    "priority_steps": [0, 6],
    # A dead connection is noticed.
    "health_check_interval": 25,
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
}
