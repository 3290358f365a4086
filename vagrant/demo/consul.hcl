# Of lb-agent's demo: one server, on the loopback address only.
server           = true
bootstrap_expect = 1
data_dir         = "/var/lib/lb-demo-consul"
bind_addr        = "127.0.0.1"
client_addr      = "127.0.0.1"
