# Of lb-agent's demo: the instances of the service echo, each with a health check of Consul's.
services {
  id      = "echo-1"
  name    = "echo"
  address = "10.77.1.2"
  port    = 8080
  tags    = ["v1"]
  check {
    http     = "http://10.77.1.2:8080/health"
    interval = "2s"
    timeout  = "2s"
  }
}

services {
  id      = "echo-2"
  name    = "echo"
  address = "10.77.2.2"
  port    = 8080
  tags    = ["v1"]
  check {
    http     = "http://10.77.2.2:8080/health"
    interval = "2s"
    timeout  = "2s"
  }
}

services {
  id      = "echo-3"
  name    = "echo"
  address = "10.77.3.2"
  port    = 8080
  tags    = ["v2"]
  check {
    http     = "http://10.77.3.2:8080/health"
    interval = "2s"
    timeout  = "2s"
  }
}
