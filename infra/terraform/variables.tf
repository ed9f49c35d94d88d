variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"
}

variable "tracking_image" {
  description = "Image of the tracking server, by digest: newsbert build-image --tracking --push prints it."
  type        = string
}

variable "model_image" {
  description = "Image of the served model, by digest: newsbert build-image BertModel/7 --push prints it. Empty for none yet."
  type        = string
  default     = ""
}

variable "trainer_image" {
  description = "Image that trains, by digest: newsbert build-image --trainer --push prints it."
  type        = string
  default     = ""
}

variable "training" {
  description = "What the training machine runs, as newsbert's arguments; the machine is there only while this is set."
  type        = list(string)
  default     = []
}

variable "training_machine" {
  description = "Type of the training machine."
  type        = string
  default     = "c3-highcpu-8"
}

variable "people" {
  description = "Who may reach the tracking server and the model, such as group:news@example.org."
  type        = list(string)
  default     = []
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the database."
  type        = bool
  default     = true
}
